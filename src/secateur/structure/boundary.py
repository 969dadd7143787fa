"""What of a model's inputs and outputs may leave: nothing, unless it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Boundary:
    """Which dimensions at the boundary are free.

    inputs:  pairs (place of a tensor among the flat inputs, dimension).
    outputs: pairs (place of a tensor among the flat outputs, dimension).
    """

    inputs: tuple[tuple[int, int], ...] = ()
    outputs: tuple[tuple[int, int], ...] = ()

    def frees_input(self, place: int, dim: int) -> bool:
        """Whether this dimension of an input may lose indices."""
        return (place, dim) in self.inputs

    def frees_output(self, place: int, dim: int) -> bool:
        """Whether this dimension of an output may lose indices."""
        return (place, dim) in self.outputs


CLOSED = Boundary()


def flat_outputs(graph: fx.Graph) -> list[Any]:
    """What a captured graph returns, flat: nodes, and None or numbers where there is no tensor."""
    output = next(node for node in graph.nodes if node.op == "output")
    return pytree.tree_leaves(output.args[0])


def without(tree: Any, losses: dict[tuple[int, int], np.ndarray]) -> Any:
    """Flat tensors of a tree without the given indices of (place, dimension)."""
    leaves, spec = pytree.tree_flatten(tree)
    for (place, dim), lost in losses.items():
        kept = np.setdiff1d(np.arange(leaves[place].shape[dim]), lost)
        leaves[place] = leaves[place].index_select(dim, torch.from_numpy(kept))
    return pytree.tree_unflatten(leaves, spec)

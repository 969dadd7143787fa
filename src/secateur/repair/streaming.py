"""Run a captured graph node by node, each on all calibration batches before the next.

So every operation can be looked at, and changed, with all of its inputs at hand, in one pass.
What no later node needs is dropped.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from secateur.structure.boundary import flat_outputs
from secateur.structure.inputs import ExampleInputs, as_arguments
from secateur.structure.structure import Removal, Structure
from secateur.surgery.reference import ZeroedReference


class Side:
    """One network on its way through the graph; ``tensors`` are its parameters and buffers.

    tensors: by the names of the graph, in the shapes of the dense model, zero where units left;
             what is written there counts from the next node on.
    """

    def __init__(
        self,
        structure: Structure,
        remove: Removal,
        tensors: dict[str, Tensor],
        batches: Sequence[ExampleInputs],
    ) -> None:
        first = ZeroedReference(structure, remove, tensors, wide=False)
        self.tensors, self._aliases = first.zeroed, structure.aliases
        self._runs = []
        for batch in batches:
            run: Any = copy.copy(first)
            run.env, run.args_iter = {}, iter(pytree.tree_leaves(as_arguments(batch)))
            self._runs.append(run)

    def write(self, name: str, value: Tensor) -> None:
        """Put a tensor in place of the one of this canonical name, under all of its names."""
        for other in self.tensors:
            if self._aliases.get(other, other) == name:
                self.tensors[other] = value
        for run in self._runs:  # parameters are fetched at the beginning of a graph
            for node in run.env:
                if node.op == "get_attr":
                    run.env[node] = self.tensors[str(node.target)]

    def step(self, node: fx.Node) -> None:
        """Run a node on every batch."""
        for run in self._runs:
            run.env[node] = run.run_node(node)

    def forget(self, node: fx.Node) -> None:
        """Drop what was needed by this node last."""
        for run in self._runs:
            for spent in run.user_to_last_uses.get(node, []):
                run.env.pop(spent, None)

    def values(self, node: fx.Node) -> list[Any]:
        """Results of a node that ran, one for each batch."""
        return [run.env[node] for run in self._runs]

    def answers(self, nodes: Sequence[Any]) -> list[list[Tensor]]:
        """Tensors among these results, for each batch."""
        found = [[run.env.get(n) if isinstance(n, fx.Node) else n for n in nodes]
                 for run in self._runs]  # fmt: skip
        return [[value for value in values if isinstance(value, Tensor)] for values in found]


def walk(
    structure: Structure, sides: Sequence[Side], before: Callable[[fx.Node], None]
) -> list[list[Tensor]]:
    """Run all sides in step; before: called with each node before the last of them runs it.

    Returns what the last one answers: the flat tensor outputs of every batch.
    """
    with torch.no_grad():
        for node in structure.captured.module.graph.nodes:
            if node.op == "output":
                return sides[-1].answers(flat_outputs(structure.captured.module.graph))
            for place, side in enumerate(sides):
                if place == len(sides) - 1:
                    before(node)
                side.step(node)
            for side in sides:
                side.forget(node)
    raise AssertionError("a graph without output")

"""What is lost without an expert: the others are chosen in its place."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.repair.divergence import divergences
from secateur.structure.groups import Group
from secateur.structure.inputs import ExampleInputs, as_arguments
from secateur.structure.structure import Removal, Structure
from secateur.surgery.reference import ZeroedReference
from secateur.surgery.tensors import named_tensors


def omitted(
    model: nn.Module,
    structure: Structure,
    group: Group,
    batch: ExampleInputs,
    removed: Removal,
    classes: int | None,
) -> np.ndarray:
    """float64 [units]: how far the answers move when one unit leaves, on average over a batch.

    A pass over the batch for each unit. Derivatives along the weights of an expert do not know
    where its inputs go without it. Those of ``removed`` are left out throughout, and cost nothing.
    """
    own = {name: tensor.detach() for name, tensor in named_tensors(model).items()}
    flat = pytree.tree_leaves(as_arguments(batch))
    before = tuple(removed.get(group.name, ()))

    def answers(gone: tuple[int, ...]) -> list[Tensor]:
        reference = ZeroedReference(structure, {**removed, group.name: gone}, own, wide=False)
        with torch.no_grad():
            found = reference.run(*flat, enable_io_processing=False)
        return [leaf for leaf in pytree.tree_leaves(found) if isinstance(leaf, Tensor)]

    wanted, losses = answers(before), np.zeros(group.size)
    for unit in range(group.size):
        if unit not in before and group.size - len(before) > group.chosen:
            given = answers((*before, unit))
            losses[unit] = float(divergences([wanted], [given], classes).mean())
    return losses

"""How much worse the model is when one unit is left out, for every unit by itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from secateur.errors import InputError
from secateur.protocols import UnitGroup
from secateur.training.loading import move
from secateur.training.statistics.passes import Source, no_batch, undisturbed, value_of

KINDS = frozenset({"omissions"})


def omissions(source: Source, needs: frozenset[str]) -> dict[str, Any]:
    """Loss with the slices of a unit at zero, less the loss with them: float64 [units] by group.

    As many passes over the data as there are units, and one more. ``loss`` may be any figure of
    merit, lower is better; nothing is differentiated. Where a norm runs across the units it sees a
    zero in the place of the one that left.
    """
    source_batches = [*source.batches]
    if not source_batches:
        raise no_batch()
    tensors = {n: p.detach() for n, p in source.model.named_parameters()}
    tensors |= {n: b.detach() for n, b in source.model.named_buffers()}
    found: dict[str, Tensor] = {}
    with undisturbed(source.model, source.device), torch.no_grad():
        whole = _loss(source, source_batches)
        for group in source.structure.groups:
            rises = []
            for unit in range(group.size):
                saved = {m.tensor: tensors[m.tensor].clone() for m in group.members}
                try:
                    _zero(group, unit, tensors)
                    rises.append(_without(source, source_batches, group.name, unit) - whole)
                finally:
                    for name, before in saved.items():
                        tensors[name].copy_(before)
            found[group.name] = torch.tensor(rises, dtype=torch.float64)
    return {"omissions": found}


def _zero(group: UnitGroup, unit: int, tensors: dict[str, Tensor]) -> None:
    for member in group.members:
        tensor = tensors[member.tensor]
        index = torch.as_tensor(member.index[unit], dtype=torch.long, device=tensor.device)
        tensor.index_fill_(member.dim, index, 0)


def _without(source: Source, batches: list[Any], group: str, unit: int) -> float:
    try:
        return _loss(source, batches)
    except InputError as error:
        raise InputError(
            f"without unit {unit} of group {group!r} there is no loss: {error}; take another "
            f"criterion, or leave the group out with layers={{{group!r}: 'keep'}}"
        ) from error


def _loss(source: Source, batches: list[Any]) -> float:
    total = 0.0
    for number, (inputs, targets) in enumerate(batches):
        inputs, targets = move(inputs, source.device), move(targets, source.device)
        total += float(value_of(source, inputs, targets, number))
    return total / len(batches)

"""Products of weights and gradients per unit, shared by the first-order criteria."""

from __future__ import annotations

import torch

from secateur.criteria._gather import gathered, parameters
from secateur.errors import InputError
from secateur.protocols import Statistics, UnitGroup


def products(group: UnitGroup, statistics: Statistics, name: str, absolute: bool) -> torch.Tensor:
    """Sum of w * g over what a unit owns, per calibration batch: float64 [batches, units].

    absolute: sum |w * g| instead. name: the criterion that asks.
    Raises InputError where there are no gradients.
    """
    members = parameters(group)
    counts = {len(statistics.gradients.get(member.tensor, ())) for member in members}
    if len(counts) != 1 or counts == {0}:
        raise InputError(
            f"{name} needs the gradients of every parameter of group {group.name!r}, one for "
            f"each calibration batch, but found {sorted(counts)} of them; give data, so that "
            'they can be collected (needs={"gradients"})'
        )
    batches = counts.pop()
    total = torch.zeros(batches, group.size, dtype=torch.float64)
    weights = gathered(members, statistics.tensors)
    # ``gathered`` is lazy: one member of one tensor is held at a time, for one batch at a time.
    gradients = [
        gathered(members, {m.tensor: statistics.gradients[m.tensor][b] for m in members})
        for b in range(batches)
    ]
    for rows in weights:
        for batch, gradient in enumerate(gradients):
            product = rows * next(gradient).to(rows.device)
            total[batch] += (product.abs() if absolute else product).sum(1).cpu()
    return total

"""Products of weights and gradients per unit, shared by the first-order criteria."""

from __future__ import annotations

import torch

from secateur.criteria._gather import collected, gathered
from secateur.criteria._reduction import members_of, reduced
from secateur.errors import InputError
from secateur.protocols import Statistics, UnitGroup


def products(
    group: UnitGroup, statistics: Statistics, name: str, absolute: bool, reduction: str = "sum"
) -> torch.Tensor:
    """Sum of w * g over what a unit owns, per calibration batch: float64 [batches, units].

    absolute: sum |w * g| instead. name: the criterion that asks. reduction: of the sums of the
    members; ``max`` and ``product`` are of their absolute values.
    Raises InputError where there are no gradients.
    """
    members = members_of(group, reduction, name)
    counts = {len(statistics.gradients.get(member.tensor, ())) for member in members}
    if len(counts) != 1 or counts == {0}:
        raise InputError(
            f"{name} needs the gradients of every parameter of group {group.name!r}, one for "
            f"each calibration batch, but found {sorted(counts)} of them; give data, so that "
            'they can be collected (needs={"gradients"})'
        )
    batches = counts.pop()
    sums = []
    weights = gathered(members, statistics.tensors)
    # ``gathered`` is lazy: one member of one tensor is held at a time, for one batch at a time.
    gradients = [
        gathered(members, {m.tensor: statistics.gradients[m.tensor][b] for m in members})
        for b in range(batches)
    ]
    for rows in weights:
        own = torch.zeros(batches, group.size, dtype=torch.float64)
        for batch, gradient in enumerate(gradients):
            product = rows * next(gradient).to(rows.device)
            own[batch] = (product.abs() if absolute else product).sum(1).cpu()
        sums.append(own.abs() if reduction in ("max", "product") else own)
    return reduced(sums, reduction)


def mean_gradient(statistics: Statistics, tensor: str, name: str) -> torch.Tensor:
    """The gradient of all calibration batches as one: float64. name: the criterion that asks.

    Raises InputError where there is none.
    """
    return each_gradient(statistics, tensor, name).mean(0)


def each_gradient(statistics: Statistics, tensor: str, name: str) -> torch.Tensor:
    """Gradients of the calibration batches: float64 [batches, *shape], on the CPU."""
    found = collected(statistics.gradients, tensor, name, "gradients")
    if not len(found):
        raise InputError(f"{name} has no gradients of {tensor!r}; give at least one batch of data")
    return torch.stack([gradient.double().cpu() for gradient in found])

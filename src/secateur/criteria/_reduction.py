"""From scores of the members of a group to scores of its units: sum, mean, max, ..."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from secateur.criteria._gather import gathered, parameters, producers
from secateur.errors import InputError
from secateur.protocols import UnitGroup, UnitMember
from secateur.registry import unknown

REDUCTIONS = ("sum", "mean", "max", "first", "product", "producers")


def members_of(group: UnitGroup, reduction: str, name: str) -> list[UnitMember]:
    """The members that a reduction looks at: all parameters; the first one that produces the units
    (of all, where none does) for ``first``; all that produce them for ``producers``.

    name: the criterion that asks. Errors: InputError for an unknown reduction, and for
    ``producers`` of a group that no layer produces.
    """
    if reduction not in REDUCTIONS:
        raise InputError(unknown("reduction", reduction, REDUCTIONS))
    if reduction == "producers":
        return producers(group, name)
    members = parameters(group)
    if reduction == "first":
        return ([m for m in members if m.role == "out"] or members)[:1]
    return members


def reduced(parts: Sequence[Tensor], reduction: str) -> Tensor:
    """One tensor from those of the members, of equal shape."""
    stacked = torch.stack([*parts])
    if reduction == "mean":
        return stacked.mean(0)
    if reduction == "max":
        return stacked.amax(0)
    return stacked.prod(0) if reduction == "product" else stacked.sum(0)


def summed(group: UnitGroup, values: Mapping[str, Tensor], reduction: str, name: str) -> Tensor:
    """Values of elements summed over what a unit owns of each member, and reduced: [units].

    values: by the names of tensors, e.g. scores of single weights.
    """
    members = members_of(group, reduction, name)
    return reduced([rows.sum(1).cpu() for rows in gathered(members, values)], reduction)


def averaged(group: UnitGroup, values: Mapping[str, Tensor], reduction: str, name: str) -> Tensor:
    """As ``summed``, of the mean over what a unit owns of each member."""
    members = members_of(group, reduction, name)
    ones = {m.tensor: torch.ones((), dtype=torch.float64).expand(values[m.tensor].shape)
            for m in members}  # fmt: skip
    pairs = zip(gathered(members, values), gathered(members, ones), strict=True)
    means = [rows.sum(1).cpu() / owned.sum(1).clamp_min(1) for rows, owned in pairs]
    return reduced(means, reduction)

"""What a unit owns, gathered into rows: the one place where criteria index tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import torch

from secateur.errors import InputError
from secateur.protocols import Statistics, UnitGroup, UnitMember

T = TypeVar("T")

# A buffer leaves with its unit too, but says nothing of what the unit is worth.
PARAMETERS = frozenset({"out", "in", "affine"})
PRODUCERS = frozenset({"out"})


def parameters(group: UnitGroup) -> list[UnitMember]:
    """The members that are slices of parameters."""
    return [member for member in group.members if member.role in PARAMETERS]


def producers(group: UnitGroup, name: str) -> list[UnitMember]:
    """The members whose layer produces the units: "own filters".

    name: the criterion that asks. Raises InputError for a group that no layer produces.
    """
    found = [member for member in group.members if member.role in PRODUCERS]
    if not found:
        raise InputError(
            f"{name} scores the filters that produce a group, but group {group.name!r} has none "
            f"(it touches {', '.join(sorted({m.tensor for m in group.members}))}); "
            f"use the criterion 'l2', or leave it out with layers={{{group.name!r}: 'keep'}}"
        )
    return found


def gathered(
    members: list[UnitMember], values: Mapping[str, torch.Tensor]
) -> Iterator[torch.Tensor]:
    """Per member the entries that each unit owns: float64 [units, entries], one at a time.
    Complex entries are given by their size.

    An entry that a unit owns through two dimensions of one tensor (the diagonal of a square
    recurrent weight) stands in the first of the two members and is zero in the second, so that
    sums count it once.
    """
    for number, member in enumerate(members):
        tensor = lookup(values, member.tensor).detach()
        index = torch.as_tensor(member.index, dtype=torch.long, device=tensor.device)
        units, width = index.shape
        rows = tensor.movedim(member.dim, 0).index_select(0, index.reshape(-1))
        rows = _real(rows.reshape(units, width, *rows.shape[1:]))
        for earlier in members[:number]:
            if earlier.tensor == member.tensor and earlier.dim != member.dim:
                rows = rows.masked_fill(_owned(earlier, member.dim, tensor), 0)
        yield rows.reshape(units, -1)


def lookup(values: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """The tensor of that name. Raises InputError where the statistics lack it."""
    if name not in values:
        raise InputError(
            f"the statistics hold no tensor {name!r}, which a group names; "
            "collect them from the model that the structure was traced from"
        )
    return values[name]


def weight(statistics: Statistics, name: str) -> torch.Tensor:
    """A tensor in float64 on the CPU. Raises InputError where the statistics lack it."""
    return _real(lookup(statistics.tensors, name).detach()).cpu()


def _real(tensor: torch.Tensor) -> torch.Tensor:
    """In float64; of complex numbers their size."""
    return (tensor.abs() if tensor.is_complex() else tensor).double()


def collected(values: Mapping[str, T], name: str, criterion: str, need: str) -> T:
    """A statistic of a tensor or a group. Raises InputError where it was not collected."""
    if name not in values:
        raise InputError(
            f"{criterion} has no {need} of {name!r}; give data, so that they can be collected "
            f"(needs={{{need!r}}}), or leave it out"
        )
    return values[name]


def _owned(member: UnitMember, dim: int, tensor: torch.Tensor) -> torch.Tensor:
    """bool, broadcast against [units, k, *other dimensions than dim]: owned through ``member``."""
    index = torch.as_tensor(member.index, dtype=torch.long, device=tensor.device)
    owned = torch.zeros(len(index), tensor.shape[member.dim], dtype=torch.bool)
    owned = owned.to(tensor.device).scatter_(1, index, True)
    shape = [len(index), 1, *(1 for _ in tensor.shape[1:])]
    shape[2 + member.dim - (member.dim > dim)] = tensor.shape[member.dim]
    return owned.view(shape)

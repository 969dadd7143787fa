"""Units of groups as slices of parameters: norms, factors along them, and which are lowest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from secateur.errors import InputError
from secateur.structure.groups import Group, Member
from secateur.structure.structure import Removal, Structure


def slices(group: Group, roles: Sequence[str] = ("out", "in", "affine")) -> list[Member]:
    """The members that are slices of parameters, of some roles."""
    return [member for member in group.members if member.role in roles]


def unit_norms(
    group: Group, tensors: Mapping[str, Tensor], roles: Sequence[str] = ("out", "in", "affine")
) -> tuple[Tensor, Tensor]:
    """Euclidean norm of what each unit owns, and how many entries that are: float64 [units] each.

    An entry that a unit owns through two dimensions of one tensor counts once.
    """
    squares = torch.zeros(group.size, dtype=torch.float64)
    counts = torch.zeros(group.size, dtype=torch.float64)
    for rows, own in _rows(slices(group, roles), tensors):
        squares += (rows.double().square() * own).flatten(1).sum(1).cpu()
        counts += own.expand_as(rows).flatten(1).sum(1).cpu()
    return squares.sqrt(), counts


def along(member: Member, factors: Tensor, tensor: Tensor) -> Tensor:
    """1 along the member's dimension, and each unit's factor at its indices; broadcasts.

    factors: [units], on the tensor's device; gradients flow back to them.
    """
    index = torch.as_tensor(member.index, dtype=torch.long, device=tensor.device)
    flat = torch.ones(tensor.shape[member.dim], dtype=factors.dtype, device=tensor.device)
    flat = flat.index_copy(0, index.reshape(-1), factors.repeat_interleave(index.shape[1]))
    return flat.view([-1 if dim == member.dim else 1 for dim in range(tensor.dim())])


def unit_masks(structure: Structure, remove: Removal) -> dict[str, Tensor]:
    """Tensor -> bool, False on the slices of the given units; tensors they touch alone."""
    masks: dict[str, Tensor] = {}
    for (name, dim), index in structure.kept(remove).items():
        shape = structure.shapes[name]
        stays = torch.zeros(shape[dim], dtype=torch.bool)
        stays[torch.from_numpy(index)] = True
        stays = stays.view([-1 if d == dim else 1 for d in range(len(shape))]).expand(shape)
        masks[name] = masks[name] & stays if name in masks else stays.clone()
    return masks


def lowest_units(scores: Mapping[str, Tensor], share: float) -> dict[str, tuple[int, ...]]:
    """The units with the lowest scores: exactly ``round(share * n)`` of the n of all groups.

    The highest of every group stays; of equal scores the later leaves first.
    Errors: InputError where so many cannot leave.
    """
    if isinstance(share, bool) or not 0 <= share < 1:
        raise InputError(f"the share of units that leaves is {share!r}; give 0 to below 1")
    names = list(scores)
    sizes = [len(scores[name]) for name in names]
    count = round(share * sum(sizes))
    if count > sum(sizes) - len(names):
        raise InputError(
            f"{count} of {sum(sizes)} units cannot leave {len(names)} groups that each keep one; "
            "give a smaller share"
        )
    line = torch.cat([scores[name].double().cpu() for name in names])
    start = 0
    for size in sizes:
        best = start + int(line[start : start + size].argmax())
        line[best] = torch.inf
        start += size
    leave = torch.zeros(len(line), dtype=torch.bool)
    leave[line.argsort(descending=True, stable=True).flip(0)[:count]] = True
    parts = dict(zip(names, leave.split(sizes), strict=True))
    return {n: tuple(part.nonzero()[:, 0].tolist()) for n, part in parts.items() if part.any()}


def _rows(
    members: Sequence[Member], tensors: Mapping[str, Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Per member [units, k, rest...] of the entries that units own, and a mask of those that no
    earlier member owned already."""
    for number, member in enumerate(members):
        tensor = tensors[member.tensor].detach()
        index = torch.as_tensor(member.index, dtype=torch.long, device=tensor.device)
        rows = tensor.movedim(member.dim, 0)[index]
        own = torch.ones(1, dtype=torch.bool, device=tensor.device)
        for earlier in members[:number]:
            if earlier.tensor == member.tensor and earlier.dim != member.dim:
                own = own & ~_taken(earlier, member, tensor)
        yield rows, own


def _taken(earlier: Member, member: Member, tensor: Tensor) -> Tensor:
    """bool, broadcasts against the rows of ``member``: owned by the same unit through the other."""
    index = torch.as_tensor(earlier.index, dtype=torch.long, device=tensor.device)
    taken = torch.zeros(len(index), tensor.shape[earlier.dim], dtype=torch.bool)
    taken = taken.to(tensor.device).scatter_(1, index, True)
    shape = [len(index), 1, *(1 for _ in tensor.shape[1:])]
    shape[2 + earlier.dim - (earlier.dim > member.dim)] = tensor.shape[earlier.dim]
    return taken.view(shape)

"""Cells: sets of elements of one weight that stay or leave together, and what they score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.errors import InputError
from secateur.registry import unknown

Cells = Callable[[Sequence[int]], Tensor]
"""Shape of a weight -> int64 of that shape, the number of the cell that each element is in."""

POOLS = ("mean", "sum", "mean-square", "norm")


@dataclass(frozen=True, eq=False)
class Cellular:
    """The cells of one weight.

    member: int64 of the weight's shape: the cell of each element, counted from 0 without gaps.
    scores: float64 [cells]. sizes: int64 [cells], elements in each.
    """

    member: Tensor
    scores: Tensor
    sizes: Tensor


def pooled(
    name: str, scores: Tensor, cells: Cells | None, pool: str, inside: Tensor | None = None
) -> Cellular:
    """The cells of one weight with the pooled scores of their elements.

    inside: bool of the scores' shape; elements outside count for nothing, in scores and sizes.

    pool: ``mean`` or ``sum`` of the scores; their ``mean-square`` or ``norm`` (the root of the sum
    of squares), which want scores from 0 up.
    Errors: InputError for scores that are not finite (+inf is allowed: it stays), for an unknown
    pool, and for cells of another shape.
    """
    if pool not in POOLS:
        raise InputError(unknown("pool", pool, POOLS))
    values = scores.detach().double().cpu()
    if bool(torch.isnan(values).any()) or bool((values == -torch.inf).any()):
        raise InputError(
            f"the scores of {name!r} are not all numbers; check the weights, and the data that "
            "they were computed with"
        )
    flat = values.reshape(-1)
    if cells is None and inside is None:
        number = torch.arange(flat.numel())
        return Cellular(number.reshape(values.shape), flat, torch.ones_like(number))
    plain = torch.arange(flat.numel()).reshape(values.shape)
    member = plain if cells is None else cells(tuple(values.shape)).cpu()
    if member.shape != values.shape:
        raise InputError(
            f"the cells of {name!r} have shape {list(member.shape)} and its scores "
            f"{list(values.shape)}; a granularity gives every element the number of its cell"
        )
    squared = pool in ("mean-square", "norm")
    if squared and flat.numel() and float(flat.min()) < 0:
        raise InputError(
            f"pool {pool!r} wants scores from 0 up, but {name!r} has {float(flat.min()):.3g}; "
            "take the pool 'mean' or 'sum'"
        )
    _, dense = torch.unique(member.reshape(-1), return_inverse=True)
    there = torch.ones_like(flat) if inside is None else inside.reshape(-1).double().cpu()
    each = torch.where(there > 0, flat.square() if squared else flat, 0.0)
    count = int(dense.max()) + 1 if len(dense) else 0
    sums, sizes = (
        torch.zeros(count, dtype=torch.float64).index_add_(0, dense, value)
        for value in (each, there)
    )
    if pool == "norm":
        sums = sums.sqrt()
    elif pool != "sum":
        sums = sums / sizes.clamp_min(1)
    return Cellular(dense.reshape(values.shape), sums, sizes.long())

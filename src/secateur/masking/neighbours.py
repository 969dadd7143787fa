"""N:M: of every M neighbouring inputs N stay."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from secateur.errors import InputError


def n_of_m(scores: Tensor, kept: int, of: int, dim: int = 1) -> Tensor:
    """bool of the scores' shape: the ``kept`` highest of every ``of`` neighbours along ``dim``.

    Neighbours are counted from the first; of a convolution they are channels at one place of the
    kernel. Of equal scores the first stay.
    Errors: InputError where it is not 0 < kept < of, and where ``of`` does not divide the size.
    """
    check_n_of_m(kept, of)
    check_divides(scores.shape, of, dim)
    groups = scores.movedim(dim, -1).unflatten(-1, (-1, of))
    order = groups.argsort(dim=-1, descending=True, stable=True)
    keep = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order[..., :kept], True)
    return keep.flatten(-2).movedim(-1, dim)


def check_n_of_m(kept: int, of: int) -> None:
    """Errors: InputError where it is not 0 < kept < of."""
    if not 0 < kept < of:
        raise InputError(f"{kept} of {of} weights cannot stay; give e.g. 2 of 4")


def check_divides(shape: Sequence[int], of: int, dim: int = 1) -> None:
    """Errors: InputError for a weight whose inputs are not a multiple of ``of``."""
    if len(shape) <= dim or shape[dim] % of:
        size = shape[dim] if len(shape) > dim else 0
        raise InputError(f"{size} inputs are not a multiple of {of}; leave this layer whole")

"""Numbers of cells that are a product of dimensions."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from secateur.errors import InputError


def along(shape: Sequence[int], dims: Collection[int]) -> Tensor:
    """int64 [*shape]: elements with the same indices in ``dims`` have the same number."""
    sizes = [size if dim in dims else 1 for dim, size in enumerate(shape)]
    return torch.arange(math.prod(sizes)).reshape(sizes).expand(tuple(shape))


def at_least(shape: Sequence[int], dims: int, name: str) -> None:
    """Raises InputError for a weight of fewer dimensions."""
    if len(shape) < dims:
        raise InputError(
            f"a weight of shape {list(shape)} has no {name}s: that takes {dims} dimensions, "
            "outputs first"
        )

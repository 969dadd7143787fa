"""Blocks of a matrix that are as even as can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.errors import InputError
from secateur.granularities import granularity
from secateur.granularities._numbering import at_least


@granularity("even-block")
@dataclass(frozen=True)
class EvenBlock:
    """A block of kernels, at most so many outputs by so many inputs; all blocks of about one size.

    Dimensions that the size does not divide are split into as few parts as there must be, whose
    sizes differ by one at most. rows: outputs; columns: inputs. Raises InputError for blocks of
    nothing.
    """

    rows: int = 20
    columns: int = 20

    def __post_init__(self) -> None:
        for size in (self.rows, self.columns):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise InputError(
                    f"blocks are at most {self.rows!r} by {self.columns!r}; give at least 1 by 1"
                )

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """int64 [*shape]. Raises InputError for vectors."""
        at_least(shape, 2, "block")
        down, right = _parts(shape[0], self.rows), _parts(shape[1], self.columns)
        number = down[:, None] * (int(right.max()) + 1) + right
        return number.reshape(*number.shape, *[1] * (len(shape) - 2)).expand(tuple(shape))


def _parts(size: int, most: int) -> Tensor:
    """The part of each index."""
    count = -(-size // most)
    return torch.arange(size) * count // size

"""Blocks of a matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.errors import InputError
from secateur.granularities import granularity
from secateur.granularities._numbering import at_least


@granularity("block")
@dataclass(frozen=True)
class Block:
    """A block: neighbouring outputs by neighbouring inputs, at one place of the kernel.

    rows: outputs; columns: inputs. Raises InputError for blocks of nothing.
    """

    rows: int = 4
    columns: int = 4

    def __post_init__(self) -> None:
        for size in (self.rows, self.columns):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise InputError(
                    f"blocks are {self.rows!r} by {self.columns!r}; give at least 1 by 1, such as "
                    "4 by 4"
                )

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """int64 [*shape]. Raises InputError for sizes that the block does not divide."""
        at_least(shape, 2, "block")
        for size, by, what in (
            (shape[0], self.rows, "outputs"),
            (shape[1], self.columns, "inputs"),
        ):
            if size % by:
                raise InputError(
                    f"blocks of {self.rows} by {self.columns} do not divide a weight of shape "
                    f"{list(shape)}: its {size} {what} are not a multiple of {by}"
                )
        down, right = shape[0] // self.rows, shape[1] // self.columns
        places = math.prod(shape[2:])
        grid = torch.arange(down * right).reshape(down, right)
        wide = grid.repeat_interleave(self.rows, 0).repeat_interleave(self.columns, 1)
        number = wide[:, :, None] * places + torch.arange(places)
        return number.reshape(tuple(shape))

"""Rows of a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from secateur.granularities import granularity
from secateur.granularities._numbering import along, at_least


@granularity("row")
@dataclass(frozen=True)
class Row:
    """A row: all weights of one output."""

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """int64 [*shape]. Raises InputError for vectors."""
        at_least(shape, 2, "row")
        return along(shape, (0,))

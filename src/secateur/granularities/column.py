"""Columns of a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from secateur.granularities import granularity
from secateur.granularities._numbering import along, at_least


@granularity("column")
@dataclass(frozen=True)
class Column:
    """A column: the weights of all outputs for one input, at one place of the kernel."""

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """int64 [*shape]. Raises InputError for vectors."""
        at_least(shape, 2, "column")
        return along(shape, range(1, len(shape)))

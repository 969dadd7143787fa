"""Filters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from secateur.granularities import granularity
from secateur.granularities._numbering import along, at_least


@granularity("filter")
@dataclass(frozen=True)
class Filter:
    """A filter: all weights of one output of a convolution, as ``row`` for a matrix."""

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """int64 [*shape]. Raises InputError for weights without places."""
        at_least(shape, 3, "filter")
        return along(shape, (0,))

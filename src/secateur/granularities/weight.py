"""Single weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from secateur.granularities import granularity
from secateur.granularities._numbering import along


@granularity("weight")
@dataclass(frozen=True)
class Weight:
    """Every weight by itself; of a linear layer, every connection."""

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """int64 [*shape]."""
        return along(shape, range(len(shape)))

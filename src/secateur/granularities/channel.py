"""Input channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from secateur.granularities import granularity
from secateur.granularities._numbering import along, at_least


@granularity("channel")
@dataclass(frozen=True)
class Channel:
    """An input channel: the weights of all outputs for one input, at all places of the kernel."""

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """int64 [*shape]. Raises InputError for vectors."""
        at_least(shape, 2, "channel")
        return along(shape, (1,))

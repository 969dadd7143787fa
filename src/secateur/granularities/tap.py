"""Places of a kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from secateur.errors import InputError
from secateur.granularities import granularity
from secateur.granularities._numbering import along, at_least


@granularity("tap")
@dataclass(frozen=True)
class Tap:
    """A tap: one place of the kernel for all inputs and outputs."""

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """int64 [*shape]. Raises InputError for weights without places, or with one."""
        at_least(shape, 3, "tap")
        if math.prod(shape[2:]) < 2:
            raise InputError(
                f"the kernel of a weight of shape {list(shape)} has one place, and no taps to "
                "choose from"
            )
        return along(shape, range(2, len(shape)))

"""Kernels of a convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from secateur.granularities import granularity
from secateur.granularities._numbering import along, at_least


@granularity("kernel")
@dataclass(frozen=True)
class Kernel:
    """A kernel: the weights between one input and one output; of a linear layer, one weight."""

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """int64 [*shape]. Raises InputError for vectors."""
        at_least(shape, 2, "kernel")
        return along(shape, (0, 1))

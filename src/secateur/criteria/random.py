"""Random scores, the control of every comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import lookup
from secateur.errors import InputError
from secateur.protocols import Statistics, UnitGroup


@criterion("random")
@dataclass(frozen=True)
class Random:
    """Uniform random scores from the generator of the statistics: a control.

    A benchmark without it says little: Blalock et al., "What is the State of Neural Network
    Pruning?", MLSys 2020.
    """

    needs: frozenset[str] = frozenset()

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size] in [0, 1). Raises InputError without a generator."""
        return _drawn((group.size,), statistics)

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """float64 in [0, 1), of the tensor's shape. Raises InputError without a generator."""
        return _drawn(lookup(statistics.tensors, tensor).shape, statistics)


def _drawn(shape: Sequence[int], statistics: Statistics) -> torch.Tensor:
    if statistics.generator is None:
        raise InputError(
            "random needs a generator, and the statistics have none; "
            "give Statistics(..., generator=torch.Generator().manual_seed(seed))"
        )
    return torch.rand(tuple(shape), generator=statistics.generator, dtype=torch.float64)

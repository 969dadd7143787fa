"""Units drawn with chances like their magnitude."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import parameters, weight
from secateur.criteria._norms import norm
from secateur.errors import InputError
from secateur.protocols import Statistics, UnitGroup


@criterion("importance-sampling")
@dataclass(frozen=True)
class ImportanceSampling:
    """Units stay with chances like the L1 norm of their weights, drawn without putting back.

    score[u] = exp(log l1[u] + g[u]) with g from a Gumbel distribution: the k largest of a group are
    such a draw (Kool, van Hoof and Welling, "Stochastic Beams and Where to Find Them", ICML 2019).
    Of an element the same of |w|.
    """

    needs: frozenset[str] = frozenset()

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError without a generator."""
        return _drawn(norm(parameters(group), statistics, 1).double(), statistics)

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """float64, of the tensor's shape. Raises InputError without a generator."""
        return _drawn(weight(statistics, tensor).abs(), statistics)


def _drawn(size: torch.Tensor, statistics: Statistics) -> torch.Tensor:
    if statistics.generator is None:
        raise InputError(
            "importance-sampling needs a generator, and the statistics have none; "
            "give Statistics(..., generator=torch.Generator().manual_seed(seed))"
        )
    drawn = torch.rand(size.shape, generator=statistics.generator, dtype=torch.float64)
    return size / -drawn.clamp(1e-300, 1 - 1e-16).log()

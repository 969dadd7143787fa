"""Own-filter magnitude, L2."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import producers
from secateur.criteria._norms import norm
from secateur.protocols import Statistics, UnitGroup


@criterion("l2-own")
@dataclass(frozen=True)
class L2Own:
    """L2 norm of the filters that produce a unit, and of nothing else.

    score[u] = sqrt(sum w²) over the rows of the producing weights that belong to unit u.
    Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017.
    """

    needs: frozenset[str] = frozenset()

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError for a group that no layer produces."""
        return norm(producers(group, "l2-own"), statistics, 2)

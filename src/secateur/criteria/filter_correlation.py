"""Correlation of filters."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import gathered, producers
from secateur.criteria._similarity import alone
from secateur.protocols import Statistics, UnitGroup


@criterion("filter-correlation")
@dataclass(frozen=True)
class FilterCorrelation:
    """How unlike a unit's filter is to the one most like it, in direction: copies go.

    score[u] = 1 - max over v of |w_u . w_v| / (|w_u| |w_v|), where w_u holds all producing slices
    of unit u. A filter of zeros has 0. Of two copies both have 0, though only one is superfluous:
    ``filter-clustering`` keeps one. Ayinde, Inanc and Zurada, "Redundant feature pruning", 2019.
    """

    needs: frozenset[str] = frozenset()

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size], in [0, 1]. Raises InputError for a group that no layer produces."""
        members = producers(group, "filter-correlation")
        filters = torch.cat([*gathered(members, statistics.tensors)], 1).cpu()
        return alone(filters @ filters.T)

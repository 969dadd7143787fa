"""Distance to the geometric median."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import gathered, producers
from secateur.protocols import Statistics, UnitGroup


@criterion("fpgm")
@dataclass(frozen=True)
class GeometricMedian:
    """Sum of the distances of a unit's filter to all others: the replaceable rank lowest.

    score[u] = sum over v of |w_u - w_v|, where w_u holds all producing slices of unit u in one
    vector. Of two equal filters both rank low, though only one is superfluous: in large cuts
    score again between steps. He et al., "Filter Pruning via Geometric Median", CVPR 2019.
    """

    needs: frozenset[str] = frozenset()

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError for a group that no layer produces."""
        filters = torch.cat([*gathered(producers(group, "fpgm"), statistics.tensors)], 1)
        # Distances do not see the mean; without it the products below lose fewer digits.
        filters = filters - filters.mean(0)
        distances = torch.cdist(filters, filters, compute_mode="use_mm_for_euclid_dist")
        return distances.fill_diagonal_(0).sum(1).cpu()

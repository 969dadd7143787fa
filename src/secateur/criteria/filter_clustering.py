"""Clusters of filters."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import gathered, producers
from secateur.criteria._similarity import heights
from secateur.protocols import Statistics, UnitGroup


@criterion("filter-clustering")
@dataclass(frozen=True)
class FilterClustering:
    """Clusters of filters, of each of which the one of largest norm stays.

    Filters (all producing slices of a unit) are joined by average linkage of their Euclidean
    distance; score[u] = the distance at which the cluster of u meets one with a larger filter. So
    the k highest are the largest filters of k clusters.
    """

    needs: frozenset[str] = frozenset()

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError for a group that no layer produces."""
        members = producers(group, "filter-clustering")
        filters = torch.cat([*gathered(members, statistics.tensors)], 1).cpu()
        centred = filters - filters.mean(0)  # the products below lose fewer digits
        apart = torch.cdist(centred, centred, compute_mode="use_mm_for_euclid_dist")
        return heights(apart, filters.norm(dim=1))

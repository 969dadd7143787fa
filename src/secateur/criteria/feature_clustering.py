"""Clusters of feature maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected
from secateur.criteria._similarity import correlations, heights
from secateur.protocols import Statistics, UnitGroup


@criterion("feature-clustering")
@dataclass(frozen=True)
class FeatureClustering:
    """Clusters of activations, of each of which the unit of largest variance stays.

    Units are joined by average linkage of 1 - |correlation| of their activations over samples and
    positions; score[u] = the distance at which the cluster of u meets one with a unit of larger
    variance. So the k highest are one unit of each of k clusters. Needs inputs, no labels.
    """

    needs: frozenset[str] = frozenset({"covariances"})

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError without covariances."""
        found = collected(statistics.covariances, group.name, "feature-clustering", "covariances")
        return heights(1 - correlations(found).abs(), found.diagonal().clamp_min(0))

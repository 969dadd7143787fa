"""Correlation of feature maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected
from secateur.criteria._similarity import alone
from secateur.protocols import Statistics, UnitGroup


@criterion("feature-correlation")
@dataclass(frozen=True)
class FeatureCorrelation:
    """How unlike a unit's activations are to those of the unit most like it: copies go.

    score[u] = 1 - max over v of the absolute correlation of activations, over samples and
    positions. A constant unit has 0. Of two copies both have 0; ``feature-clustering`` keeps one.
    Needs inputs, no labels.
    """

    needs: frozenset[str] = frozenset({"covariances"})

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size], in [0, 1]. Raises InputError without covariances."""
        return alone(
            collected(statistics.covariances, group.name, "feature-correlation", "covariances")
        )

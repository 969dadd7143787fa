"""Average percentage of zeros."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected
from secateur.protocols import Statistics, UnitGroup


@criterion("apoz")
@dataclass(frozen=True)
class AveragePercentageOfZeros:
    """Share of activations of a unit that are not zero: those that are mostly zero go.

    score[u] = 1 - APoZ[u], the share of samples and positions at which what the readers get of unit
    u is not within 1e-6 of 0. Says something after ReLU alone: elsewhere all have 1. Hu et al.,
    "Network Trimming", 2016. Needs inputs, no labels.
    """

    needs: frozenset[str] = frozenset({"activations"})

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError for a group without activations."""
        found = collected(statistics.activations, group.name, "apoz", "activations")
        return 1 - found.zeros

"""Minimum-entropy pruning: channels whose activations tell samples least apart go."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected
from secateur.errors import InputError
from secateur.protocols import Statistics, UnitGroup


@criterion("entropy")
@dataclass(frozen=True)
class FeatureMapEntropy:
    """Entropy of a unit's mean activation over samples: those of little information go.

    score[u] = -sum p log p over a histogram of the mean of each sample's map, in nats. The bins
    (10) divide what the units of the group reach together, so that a constant unit has 0, and one
    spread evenly over all of it log 10. Redundant units score alike: ``max-entropy`` sees them. Luo
    and Wu, "An Entropy-based Pruning Method for CNN Compression", 2017. Needs inputs, no labels;
    with few samples a histogram says little.
    """

    needs: frozenset[str] = frozenset({"activations"})
    bins: int = 10

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise InputError(f"bins is {self.bins}; give at least 2")

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size], in [0, log bins]. Raises InputError without activations."""
        means = collected(statistics.activations, group.name, "entropy", "activations").means
        low, high = means.min(), means.max()
        if not bool(high > low):
            return torch.zeros(means.shape[1], dtype=torch.float64)
        bin_of = ((means - low) / (high - low) * self.bins).long().clamp(0, self.bins - 1)
        counts = torch.nn.functional.one_hot(bin_of, self.bins).sum(0)
        return torch.special.entr(counts.double() / len(means)).sum(1)

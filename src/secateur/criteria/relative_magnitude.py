"""Relative magnitude: as a multiple of the layer's mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import weight
from secateur.criteria._reduction import averaged, members_of
from secateur.protocols import Statistics, UnitGroup


@criterion("relative-magnitude")
@dataclass(frozen=True)
class RelativeMagnitude:
    """Mean magnitude of a unit's weights as a multiple of their layer's mean, over its layers.

    score of an element = |w| / mean |w| of its tensor; of a unit the mean over what it owns of a
    tensor, averaged over the tensors of the group. The average unit has 1 whatever the size and
    scale of a layer, so that scores of different layers compare.
    """

    needs: frozenset[str] = frozenset()
    reduction: str = "mean"
    normalise: str = "none"

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]."""
        members = members_of(group, self.reduction, "relative-magnitude")
        values = {m.tensor: self.elements(m.tensor, statistics) for m in members}
        return averaged(group, values, self.reduction, "relative-magnitude")

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """|w| / mean |w|: float64, of the tensor's shape; zeros for a tensor of zeros."""
        size = weight(statistics, tensor).abs()
        return size / size.mean().clamp_min(torch.finfo(torch.float64).tiny)

"""Relative magnitude: the share of a layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import weight
from secateur.criteria._reduction import members_of, summed
from secateur.protocols import Statistics, UnitGroup


@criterion("layer-share")
@dataclass(frozen=True)
class LayerShare:
    """Share of the magnitude of each layer that leaves with a unit, averaged over layers.

    score of an element = |w| / sum |w| of its tensor, from 0 to 1; of a unit the sum over what it
    owns of a tensor, averaged over the tensors of the group. Scaling a layer changes nothing. Under
    one threshold for all layers large layers vanish first: there take ``relative-magnitude``.
    """

    needs: frozenset[str] = frozenset()
    reduction: str = "mean"

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]."""
        members = members_of(group, self.reduction, "layer-share")
        shares = {m.tensor: self.elements(m.tensor, statistics) for m in members}
        return summed(group, shares, self.reduction, "layer-share")

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """|w| / sum |w|: float64, of the tensor's shape; zeros for a tensor of zeros."""
        size = weight(statistics, tensor).abs()
        return size / size.sum().clamp_min(torch.finfo(torch.float64).tiny)

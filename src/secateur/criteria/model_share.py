"""Relative magnitude: the share of the whole model."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import weight
from secateur.criteria._reduction import members_of, summed
from secateur.protocols import Statistics, UnitGroup


@criterion("model-share")
@dataclass(frozen=True)
class ModelShare:
    """Share of the magnitude of the whole model that leaves with a unit.

    score of an element = |w| / sum |w| over all parameters of the model; of a unit the sum over
    what it owns. Order and comparison between layers are those of plain magnitude, on a scale from
    0 to 1.
    """

    needs: frozenset[str] = frozenset()
    reduction: str = "sum"
    normalise: str = "none"

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]."""
        members = members_of(group, self.reduction, "model-share")
        sizes = {m.tensor: weight(statistics, m.tensor).abs() for m in members}
        whole = _whole(statistics)
        shares = {name: size / whole for name, size in sizes.items()}
        return summed(group, shares, self.reduction, "model-share")

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """|w| / sum |w| of the model: float64, of the tensor's shape."""
        return weight(statistics, tensor).abs() / _whole(statistics)


def _whole(statistics: Statistics) -> float:
    """Sum of |w| over all parameters."""
    sums = [
        float(torch.linalg.vector_norm(tensor.detach(), 1, dtype=torch.float64))
        for name, tensor in statistics.tensors.items()
        if name not in statistics.buffers and tensor.is_floating_point()
    ]
    return sum(sums) or 1.0

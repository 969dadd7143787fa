"""Gradient magnitude."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._reduction import members_of, summed
from secateur.criteria._taylor import each_gradient
from secateur.protocols import Statistics, UnitGroup


@criterion("gradient")
@dataclass(frozen=True)
class GradientMagnitude:
    """Absolute gradient of a unit's weights, summed, averaged over batches.

    score of an element = mean over calibration batches of |dL/dw|; of a unit the sum over what it
    owns in the group. Where a training has converged gradients cancel within a batch, and small
    batches say more. A baseline of Blalock et al., "What is the State of Neural Network Pruning?",
    MLSys 2020.
    """

    needs: frozenset[str] = frozenset({"gradients"})
    reduction: str = "sum"

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError without gradients."""
        members = members_of(group, self.reduction, "gradient")
        values = {m.tensor: self.elements(m.tensor, statistics) for m in members}
        return summed(group, values, self.reduction, "gradient")

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """Mean over batches of |g|: float64, of the tensor's shape."""
        return each_gradient(statistics, tensor, "gradient").abs().mean(0)

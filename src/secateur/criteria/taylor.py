"""First-order Taylor, group form."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._taylor import products
from secateur.protocols import Statistics, UnitGroup


@criterion("taylor")
@dataclass(frozen=True)
class Taylor:
    """First-order change of the loss when a unit leaves, |sum w*g|, averaged over batches.

    score[u] = mean over calibration batches of |sum of w * dL/dw over all entries that unit u
    owns in the group|: to first order the change of the loss per share of the unit that leaves.
    The sum comes before the absolute value, so entries may cancel; ``taylor-abs`` is the other
    method of this name, sum |w*g|, where they cannot. Molchanov et al., "Importance Estimation
    for Neural Network Pruning", CVPR 2019.
    """

    needs: frozenset[str] = frozenset({"gradients"})
    reduction: str = "sum"

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError without gradients."""
        found = products(group, statistics, "taylor", False, self.reduction)
        return found.abs().mean(0)

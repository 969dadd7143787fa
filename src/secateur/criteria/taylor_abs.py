"""First-order Taylor of single weights, summed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import weight
from secateur.criteria._taylor import each_gradient, products
from secateur.protocols import Statistics, UnitGroup


@criterion("taylor-abs")
@dataclass(frozen=True)
class TaylorAbsolute:
    """Summed first-order importance of a unit's single weights, sum |w*g|, over batches.

    score[u] = mean over calibration batches of the sum of |w * dL/dw| over all entries that unit
    u owns in the group; of an element its own term. Entries cannot cancel, as they do in
    ``taylor``, |sum w*g|; an upper bound of it. Molchanov et al., CVPR 2019, for single weights;
    Fang et al., "DepGraph", CVPR 2023, for groups.
    """

    needs: frozenset[str] = frozenset({"gradients"})
    reduction: str = "sum"

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError without gradients."""
        return products(group, statistics, "taylor-abs", True, self.reduction).mean(0)

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """Mean over batches of |w * g|: float64, of the tensor's shape."""
        gradients = each_gradient(statistics, tensor, "taylor-abs")
        return (weight(statistics, tensor) * gradients).abs().mean(0)

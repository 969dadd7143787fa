"""Group magnitude, L-infinity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import weight
from secateur.criteria._norms import norm
from secateur.criteria._reduction import members_of
from secateur.protocols import Statistics, UnitGroup


@criterion("linf")
@dataclass(frozen=True)
class LInfinity:
    """The largest weight in absolute value that leaves with a unit.

    score[u] = max |w| over the entries w that unit u owns in any parameter of the group: the limit
    of ``lp`` for p without bound. Of an element |w|.
    """

    needs: frozenset[str] = frozenset()
    reduction: str = "sum"

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]."""
        members = members_of(group, self.reduction, "linf")
        return norm(members, statistics, math.inf, self.reduction)

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """|w|: float64, of the tensor's shape."""
        return weight(statistics, tensor).abs()

"""Group magnitude, Lp."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import weight
from secateur.criteria._norms import norm
from secateur.criteria._reduction import members_of
from secateur.errors import InputError
from secateur.protocols import Statistics, UnitGroup


@criterion("lp")
@dataclass(frozen=True)
class Lp:
    """Lp norm of all weights that leave with a unit, of p = 1/2 where nothing else is said.

    score[u] = (sum |w|^p)^(1/p) over the entries w that unit u owns in any parameter of the group;
    of an element |w|. Below 1 many small weights count for more than one large, above 2 for less;
    ``Lp(p=3)`` in Python.
    """

    needs: frozenset[str] = frozenset()
    reduction: str = "sum"
    p: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.p < math.inf:
            raise InputError(f"p is {self.p}; give a number above 0, or take the criterion 'linf'")

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]."""
        members = members_of(group, self.reduction, "lp")
        return norm(members, statistics, self.p, self.reduction)

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """|w|: float64, of the tensor's shape."""
        return weight(statistics, tensor).abs()

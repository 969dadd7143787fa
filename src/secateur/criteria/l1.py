"""Group magnitude, L1."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import weight
from secateur.criteria._norms import norm
from secateur.criteria._reduction import members_of
from secateur.protocols import Statistics, UnitGroup


@criterion("l1")
@dataclass(frozen=True)
class L1:
    """L1 norm of all weights that leave with a unit, producers and consumers alike.

    score[u] = sum |w| over the entries w that unit u owns in any parameter of the group; of an
    element |w|. Group form: Fang et al., "DepGraph", CVPR 2023; of single filters: Li et al.,
    "Pruning Filters for Efficient ConvNets", ICLR 2017; of weights: Han et al., NeurIPS 2015.
    """

    needs: frozenset[str] = frozenset()
    reduction: str = "sum"

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]."""
        return norm(members_of(group, self.reduction, "l1"), statistics, 1, self.reduction)

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """|w|: float64, of the tensor's shape."""
        return weight(statistics, tensor).abs()

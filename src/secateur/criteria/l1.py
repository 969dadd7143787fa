"""Group magnitude, L1."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import parameters
from secateur.criteria._norms import norm
from secateur.protocols import Statistics, UnitGroup


@criterion("l1")
@dataclass(frozen=True)
class L1:
    """L1 norm of all weights that leave with a unit, producers and consumers alike.

    score[u] = sum |w| over the entries w that unit u owns in any parameter of the group.
    Group form: Fang et al., "DepGraph", CVPR 2023; of single filters: Li et al., "Pruning
    Filters for Efficient ConvNets", ICLR 2017.
    """

    needs: frozenset[str] = frozenset()

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]."""
        return norm(parameters(group), statistics, 1)

"""Mean absolute weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import gathered, lookup, weight
from secateur.criteria._reduction import members_of
from secateur.protocols import Statistics, UnitGroup


@criterion("mean-magnitude")
@dataclass(frozen=True)
class MeanMagnitude:
    """Mean |w| over all weights that leave with a unit.

    score[u] = mean |w| over the entries w that unit u owns in any parameter of the group. Within a
    group the order of ``l1``; between groups as they are it does not favour units with many
    weights. Of an element |w|.
    """

    needs: frozenset[str] = frozenset()

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]."""
        members = members_of(group, "sum", "mean-magnitude")
        rows = torch.cat([*gathered(members, statistics.tensors)], 1)
        ones = {m.tensor: torch.ones_like(lookup(statistics.tensors, m.tensor)) for m in members}
        owned = torch.cat([*gathered(members, ones)], 1)  # an entry owned twice counts once
        return (rows.abs().sum(1) / owned.sum(1)).cpu()

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """|w|: float64, of the tensor's shape."""
        return weight(statistics, tensor).abs()

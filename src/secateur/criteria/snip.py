"""SNIP: connection sensitivity."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import weight
from secateur.criteria._reduction import members_of, summed
from secateur.criteria._taylor import mean_gradient
from secateur.protocols import Statistics, UnitGroup


@criterion("snip")
@dataclass(frozen=True)
class Snip:
    """Connection sensitivity |w * g| as a share of that of the whole model; for untrained nets.

    score of an element = |w * dL/dw| / sum |w * dL/dw| over all tensors that groups touch, with the
    gradient of all batches as one: the change of the loss along a factor on the weight. Of a unit
    the sum over what it owns. Beyond 95 % zeros at once whole layers may vanish; take steps. Lee et
    al., "SNIP", ICLR 2019. Gradients are taken in eval mode: recalibrate the batch norms of a net
    that was never trained.
    """

    needs: frozenset[str] = frozenset({"gradients"})
    reduction: str = "sum"

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError without gradients."""
        members = members_of(group, self.reduction, "snip")
        whole = _whole(statistics)
        values = {m.tensor: _sensitivity(m.tensor, statistics) / whole for m in members}
        return summed(group, values, self.reduction, "snip")

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """float64, of the tensor's shape; all tensors together sum to 1."""
        return _sensitivity(tensor, statistics) / _whole(statistics)


def _sensitivity(tensor: str, statistics: Statistics) -> torch.Tensor:
    return (weight(statistics, tensor) * mean_gradient(statistics, tensor, "snip")).abs()


def _whole(statistics: Statistics) -> float:
    return sum(float(_sensitivity(name, statistics).sum()) for name in statistics.gradients) or 1.0

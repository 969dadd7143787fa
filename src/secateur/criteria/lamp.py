"""LAMP: layer-adaptive magnitude."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import weight
from secateur.criteria._norms import norm
from secateur.criteria._reduction import members_of
from secateur.protocols import Statistics, UnitGroup


@criterion("lamp")
@dataclass(frozen=True)
class LayerAdaptiveMagnitude:
    """Squared magnitude as a share of all in the layer that are no smaller; for one global ranking.

    score of an element = w² / sum of v² over v of its tensor with |v| >= |w|; of a unit the same of
    its L2 norm within its group. The largest of each layer has 1, so that no layer vanishes, and
    the order within a layer is that of magnitude. Lee et al., "Layer-adaptive sparsity for the
    magnitude-based pruning", ICLR 2021.
    """

    needs: frozenset[str] = frozenset()
    reduction: str = "sum"
    normalise: str = "none"

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size], in [0, 1]."""
        return _shares(norm(members_of(group, self.reduction, "lamp"), statistics, 2,
                            self.reduction).square())  # fmt: skip

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """float64 in [0, 1], of the tensor's shape."""
        size = weight(statistics, tensor).square()
        return _shares(size.reshape(-1)).reshape(size.shape)


def _shares(size: torch.Tensor) -> torch.Tensor:
    """size / sum of those from it upwards: [n]. Zeros have 0."""
    order = size.argsort(stable=True)
    ascending = size[order]
    upwards = ascending.flip(0).cumsum(0).flip(0)
    shares = ascending / upwards.clamp_min(torch.finfo(torch.float64).tiny)
    return torch.empty_like(size).index_copy(0, order, shares)

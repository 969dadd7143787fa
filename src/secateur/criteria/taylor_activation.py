"""First-order Taylor, activation form."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected
from secateur.protocols import Statistics, UnitGroup


@criterion("taylor-activation")
@dataclass(frozen=True)
class TaylorActivation:
    """First-order change of each sample's loss when a unit's activations vanish, averaged.

    score[u] = mean over samples of |sum over positions of a * dL/da| where layers read unit u, by
    their linearity |sum w * dL/dw| over the weights that read it. Groups that no layer reads by a
    weight are judged by what produces them. ``taylor`` counts every weight of the unit, and a batch
    at a time. Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient
    Inference", ICLR 2017. A backward pass for each sample.
    """

    needs: frozenset[str] = frozenset({"products"})

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError without the samples' products."""
        found = collected(statistics.products, group.name, "taylor-activation", "products")
        return found.abs().mean(0)

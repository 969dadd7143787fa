"""Optimal brain damage: second order, weight by weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected, weight
from secateur.criteria._reduction import members_of, summed
from secateur.protocols import Statistics, UnitGroup


@criterion("obd")
@dataclass(frozen=True)
class OptimalBrainDamage:
    """Second-order saliency of single weights, half of h w², h the Fisher diagonal; summed.

    score of an element = 1/2 E[g²] w², with squares of gradients of single samples: E[g²] is the
    Hessian's diagonal where the labels are distributed as the model says. Of a unit the sum over
    what it owns, as if its weights left one by one; ``fisher`` lets them leave together. LeCun,
    Denker and Solla, "Optimal Brain Damage", NeurIPS 1989. A backward pass for each sample.
    """

    needs: frozenset[str] = frozenset({"squares"})
    reduction: str = "sum"

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError without the squares of gradients."""
        members = members_of(group, self.reduction, "obd")
        values = {m.tensor: self.elements(m.tensor, statistics) for m in members}
        return summed(group, values, self.reduction, "obd")

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """1/2 E[g²] w²: float64, of the tensor's shape."""
        squares = collected(statistics.squares, tensor, "obd", "squares")
        return weight(statistics, tensor).square() * squares / 2

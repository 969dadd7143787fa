"""Wanda: weights and activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected, gathered, weight
from secateur.criteria._readers import readers
from secateur.protocols import Statistics, UnitGroup


@criterion("wanda")
@dataclass(frozen=True)
class Wanda:
    """Weights by the size of what they are multiplied with, |w| times the norm of the input.

    score of an element = |W_ij| * sqrt(E x_j²), the published |W_ij| |X_j| but for a factor of the
    layer; to be compared within rows, by a local scope. Of a unit the sum over the weights that
    read it. Where the inputs are uncorrelated, the order of optimal brain surgeon. Sun et al., "A
    Simple and Effective Pruning Approach for Large Language Models", ICLR 2024. Needs inputs, no
    labels.
    """

    needs: frozenset[str] = frozenset({"norms"})

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError for a group that no linear layer reads."""
        members = readers(group, statistics.norms, "wanda")
        values = {m.tensor: self.elements(m.tensor, statistics) for m in members}
        return torch.stack([rows.sum(1) for rows in gathered(members, values)]).sum(0)

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """float64, of the tensor's shape. Raises InputError for what is no weight of a map."""
        norms = collected(statistics.norms, tensor, "wanda", "norms")
        return weight(statistics, tensor).abs() * norms

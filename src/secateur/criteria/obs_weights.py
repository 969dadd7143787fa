"""Optimal brain surgeon for single weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected, gathered, weight
from secateur.criteria._readers import readers
from secateur.protocols import Statistics, UnitGroup


@criterion("obs-weights")
@dataclass(frozen=True)
class OptimalBrainSurgeonWeights:
    """Squared error that is left when one weight leaves and the others of its row are solved anew.

    score of an element = 1/2 w_ij² / [H^-1]_jj, H the second moment of the layer's inputs, damped
    by 1e-2 of its mean diagonal: of its answer, per place. Of a unit the sum over the weights that
    read it, as if they left one by one; ``obs`` lets them leave together, and in turn. Hassibi and
    Stork, NeurIPS 1992; by layers Dong et al., NeurIPS 2017. Needs inputs, no labels.
    """

    needs: frozenset[str] = frozenset({"inverses"})

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError for a group that no linear layer reads."""
        members = readers(group, statistics.inverses, "obs-weights")
        values = {m.tensor: self.elements(m.tensor, statistics) for m in members}
        return torch.stack([rows.sum(1) for rows in gathered(members, values)]).sum(0)

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """float64, of the tensor's shape. Raises InputError for what is no weight of a map."""
        inverses = collected(statistics.inverses, tensor, "obs-weights", "inverses")
        return weight(statistics, tensor).square() / (2 * inverses)

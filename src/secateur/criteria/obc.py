"""Optimal brain compression: weights leave each row in turn."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected, gathered
from secateur.criteria._readers import readers
from secateur.protocols import Statistics, UnitGroup


@criterion("obc")
@dataclass(frozen=True)
class OptimalBrainCompression:
    """Squared error that is added when a weight leaves its row in its turn, the rest solved anew.

    Within a row the weight of least w² / [H^-1]_jj leaves, the others and the inverse are brought
    up to date, and so on: exact, where ``obs-weights`` scores each weight once. score of an element
    = the rise of half the error, made monotone along its row's order; the lowest of a layer say how
    many leave each of its rows. Of a unit the sum over the weights that read it. Frantar
    and Alistarh, "Optimal Brain Compression", NeurIPS 2022. Needs inputs, no labels; time grows as
    outputs * inputs³, so that layers of more than 1024 inputs are refused.
    """

    needs: frozenset[str] = frozenset({"removals"})

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError for a group that no linear layer reads."""
        members = readers(group, statistics.removals, "obc")
        rows = gathered(members, statistics.removals)
        return torch.stack([each.sum(1) for each in rows]).sum(0)

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """float64, of the tensor's shape. Raises InputError for what is no weight of a map."""
        return collected(statistics.removals, tensor, "obc", "removals")

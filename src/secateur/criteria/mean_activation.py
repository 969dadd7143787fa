"""Mean activation."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected
from secateur.protocols import Statistics, UnitGroup


@criterion("mean-activation")
@dataclass(frozen=True)
class MeanActivation:
    """Mean absolute activation of a unit, over samples and positions.

    score[u] = mean |a| of what the readers get of unit u. A scale that the readers undo changes it.
    A baseline of Molchanov et al., ICLR 2017; aggregated so for language models in Muralidharan et
    al., "Compact Language Models via Pruning and Knowledge Distillation", 2024. Needs inputs, no
    labels.
    """

    needs: frozenset[str] = frozenset({"activations"})

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError for a group without activations."""
        found = collected(statistics.activations, group.name, "mean-activation", "activations")
        return found.sizes

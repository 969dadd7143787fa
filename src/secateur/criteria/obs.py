"""Optimal brain surgeon: the loss that is left when what reads a unit is solved anew."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.errors import InputError
from secateur.protocols import Statistics, UnitGroup


@criterion("obs")
@dataclass(frozen=True)
class OptimalBrainSurgeon:
    """Loss that is added when a unit leaves in its turn and the layers that read it are solved.

    The greedy order of a group, and for each unit the rise of the loss when it leaves after those
    before it; rises are made monotone, so that sums of the smallest are the loss of a level.
    Comparable between groups as it is. Hassibi and Stork 1993; for structures ZipLM, Kurtic et
    al. 2023. Needs calibration inputs, no labels.
    """

    needs: frozenset[str] = frozenset({"losses"})

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError without the losses of this group."""
        if group.name not in statistics.losses:
            raise InputError(
                f"the criterion 'obs' has no losses of group {group.name!r}; collect them with "
                "calibration inputs"
            )
        return statistics.losses[group.name]

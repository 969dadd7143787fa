"""Leave one out: the loss, or any other figure, without each unit."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected
from secateur.protocols import Statistics, UnitGroup

RAMP = 1e-9  # of the largest difference: it orders what is no worse


@criterion("leave-one-out")
@dataclass(frozen=True)
class LeaveOneOut:
    """Rise of the loss when one unit is left out, measured, unit by unit.

    score[u] = L(slices of u at zero) - L over all calibration batches; where the model is no worse
    without, next to 0, in the order of the differences. ``loss`` of ``plan`` may be any figure of
    merit (outputs, targets) -> number, lower is better. As many passes over the data as the model
    has units: minutes for small nets, and hours for large ones. Blind to units that make up for
    each other.
    """

    needs: frozenset[str] = frozenset({"omissions"})

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size], from 0 up. Raises InputError where nothing was left out."""
        rises = collected(statistics.omissions, group.name, "leave-one-out", "omissions")
        rank = rises.argsort(stable=True).argsort().double() / len(rises)
        return rises.clamp_min(0) + RAMP * float(rises.abs().max()) * rank

"""Leave one out: the loss, or any other figure, without each unit."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected
from secateur.protocols import Statistics, UnitGroup


@criterion("leave-one-out")
@dataclass(frozen=True)
class LeaveOneOut:
    """Rise of the loss when one unit is left out, measured, unit by unit.

    score[u] = L(slices of u at zero) - L over all calibration batches; below 0 where the model is
    better without. ``loss`` of ``plan`` may be any figure of merit (outputs, targets) -> number,
    lower is better. As many passes over the data as the model has units: minutes for small nets,
    and hours for large ones. Blind to units that make up for each other. Compared as they are, by
    the scope ``global``.
    """

    needs: frozenset[str] = frozenset({"omissions"})
    normalise: str = "none"

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError where nothing was left out."""
        return collected(statistics.omissions, group.name, "leave-one-out", "omissions")

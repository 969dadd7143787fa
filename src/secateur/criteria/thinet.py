"""ThiNet: reconstruction of the next layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected
from secateur.protocols import Statistics, UnitGroup
from secateur.repair.removal import Trace
from secateur.repair.tracing import unit_losses


@criterion("thinet")
@dataclass(frozen=True)
class ThiNet:
    """What the answers of the next layers lose when units leave, greedily from none.

    The set T of units that left grows by the one that keeps sum_i (sum over c in T of x_ic)² least,
    x_ic what unit c adds to the answer i of a layer that reads it; nothing is solved anew, which
    is what ``obs`` does. score = the rise of this error in the unit's turn, as a share of the
    answers' energy, made monotone: sums of the smallest are the loss of a level. Luo, Wu and Lin,
    "ThiNet", ICCV 2017. Needs inputs, no labels.
    """

    needs: frozenset[str] = frozenset({"contributions"})

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError for a group that no linear layer reads."""
        found = collected(statistics.contributions, group.name, "thinet", "contributions")
        together = found.double().numpy()
        cost = np.diagonal(together).copy()  # of the next unit, by which it is
        order, errors = [], [0.0]
        for _ in range(len(together)):
            unit = int(cost.argmin())
            order.append(unit)
            errors.append(errors[-1] + float(cost[unit]))
            cost += 2 * together[unit]
            cost[unit] = np.inf
        return unit_losses(Trace(np.array(order), np.array(errors)))

"""Movement: weights that a training moves towards zero go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._reduction import members_of, summed
from secateur.errors import InputError
from secateur.protocols import Statistics, UnitGroup


@criterion("movement")
@dataclass(frozen=True)
class Movement:
    """How far training moved weights away from zero, -sum of w * g over its updates.

    score of an element = - sum over updates of w * dL/dw, which training keeps; of a unit the sum
    over what it owns. Below 0 where the weights shrank; compared as they are, by the scope
    ``global``. For fine-tuning, where magnitude still says what the first training made. Sanh, Wolf
    and Rush, "Movement Pruning", NeurIPS 2020. In Python ``Movement(sums={name: tensor})``.
    """

    needs: frozenset[str] = frozenset({"movement"})
    reduction: str = "sum"
    normalise: str = "none"
    sums: Mapping[str, torch.Tensor] | None = None

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError where no training kept the sums."""
        members = members_of(group, self.reduction, "movement")
        values = {m.tensor: self.elements(m.tensor, statistics) for m in members}
        return summed(group, values, self.reduction, "movement")

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """float64, of the tensor's shape. Raises InputError where no training kept the sums."""
        sums = statistics.movement if self.sums is None else self.sums
        if tensor not in sums:
            raise InputError(
                f"movement needs the sums of w * gradient that a training keeps, and there are "
                f"none of {tensor!r}; train with them, or take the criterion 'taylor-abs'"
            )
        return sums[tensor].detach().double().cpu()

"""GraSP: what weights do for the flow of the gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected, weight
from secateur.criteria._reduction import members_of, summed
from secateur.protocols import Statistics, UnitGroup


@criterion("grasp")
@dataclass(frozen=True)
class Grasp:
    """Gradient flow that leaves with a weight, w * (Hg); below 0 where its removal adds some.

    The paper scores S = -w * (Hg), with H and g of the loss over all batches, and removes the
    highest; here the highest stay: score = -S, half of what |g|² loses to first order when the
    element is zeroed. Of a unit the sum over what it owns. For nets at their start. Scores below 0
    are compared as they are, by the scope ``global``. Wang, Zhang and Grosse, "Picking Winning
    Tickets Before Training by Preserving Gradient Flow", ICLR 2020. In eval mode: recalibrate the
    batch norms of a net that was never trained.
    """

    needs: frozenset[str] = frozenset({"curvature"})
    reduction: str = "sum"
    normalise: str = "none"

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError without the Hessian's product."""
        members = members_of(group, self.reduction, "grasp")
        values = {m.tensor: self.elements(m.tensor, statistics) for m in members}
        return summed(group, values, self.reduction, "grasp")

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """w * (Hg): float64, of the tensor's shape."""
        found = collected(statistics.curvature, tensor, "grasp", "curvature")
        return weight(statistics, tensor) * found.double()

"""SynFlow: synaptic flow, without data."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected
from secateur.criteria._reduction import members_of, summed
from secateur.protocols import Statistics, UnitGroup


@criterion("synflow")
@dataclass(frozen=True)
class SynapticFlow:
    """Share of an input of ones that flows through a weight, all weights in absolute value.

    score of an element = |w * dR/dw|, R the sum of the outputs of the net with |w| for w and
    without biases; of a unit the sum over what it owns. All layers in a row have the same sum.
    Queries and keys of attention carry none: an input of ones looks alike at every place. Scored
    once it ranks like others do; the method scores anew in a hundred steps, which is what keeps
    layers from vanishing: take ``pruning.steps``. Tanaka et al., "Pruning neural networks without
    any data by iteratively conserving synaptic flow", NeurIPS 2020.
    """

    needs: frozenset[str] = frozenset({"flow"})
    reduction: str = "sum"

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError where the flow was not collected."""
        members = members_of(group, self.reduction, "synflow")
        values = {m.tensor: self.elements(m.tensor, statistics) for m in members}
        return summed(group, values, self.reduction, "synflow")

    def elements(self, tensor: str, statistics: Statistics) -> torch.Tensor:
        """|w * dR/dw|: float64, of the tensor's shape."""
        return collected(statistics.flow, tensor, "synflow", "flow").double()

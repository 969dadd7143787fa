"""Group lasso over coupled groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from secateur.regularisers import regulariser
from secateur.regularisers._weights import from_zero
from secateur.structure.groups import Group
from secateur.training.extensions import Extension, Moment, Scene
from secateur.training.removing import Removing
from secateur.training.units import along, slices, unit_norms


@regulariser("group-lasso")
@dataclass(frozen=True)
class GroupLasso:
    """Whole units shrink by the same amount at every update, and many become exactly zero.

    The penalty is weight * sum over units of sqrt(p) |w_u|, where w_u holds all p weights that
    leave with unit u: filters, norms and what reads them. After each step w_u <- w_u max(0, 1 -
    rate * weight * sqrt(p) / |w_u|), its proximal map, for one group of units after the
    other: a weight between two layers belongs to a unit of each. Units that end as zeros leave;
    where a budget chooses, the criteria of magnitude put them first.
    Wen et al., "Learning Structured Sparsity", NeurIPS 2016; coupled: Fang et al., CVPR 2023.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"structure"})
    weight: float = 1e-4

    def __post_init__(self) -> None:
        from_zero("group-lasso", weight=self.weight)

    def begin(self, scene: Scene) -> Extension:
        """Errors: InputError without a structure."""
        return _Grouped(self.weight, scene)


class _Grouped(Removing):
    def __init__(self, weight: float, scene: Scene) -> None:
        super().__init__(scene, "group-lasso")
        self.weight = weight
        self.groups = [g for g in self.structure.groups if self._trained(g)]

    def _trained(self, group: Group) -> bool:
        return all(member.tensor in self.parameters for member in slices(group))

    @torch.no_grad()
    def after_step(self, at: Moment) -> None:
        amount = at.learning_rate * self.weight
        for group in self.groups:
            norms, counts = unit_norms(group, self.parameters)
            left = 1 - amount * counts.sqrt() / norms.clamp_min(torch.finfo(torch.float64).tiny)
            shrink(group, left.clamp_min(0), self.parameters)

    def choose(self) -> dict[str, tuple[int, ...]]:
        """Units that are exactly zero; the largest of a group stays in any case."""
        found = {}
        for group in self.groups:
            norms, _ = unit_norms(group, self.parameters)
            zero = norms == 0
            zero[int(norms.argmax())] = False
            if zero.any():
                found[group.name] = tuple(zero.nonzero()[:, 0].tolist())
        return found

    def report(self) -> dict[str, float]:
        units = sum(group.size for group in self.groups)
        return {"units_at_zero": sum(map(len, self.choose().values())) / max(units, 1)}


def shrink(
    group: Group, factors: torch.Tensor, parameters: Mapping[str, torch.nn.Parameter]
) -> None:
    """Multiply every slice of each unit by its factor; what two units own, by both."""
    for member in slices(group):
        tensor = parameters[member.tensor]
        tensor.mul_(along(member, factors.to(tensor), tensor))

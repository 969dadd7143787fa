"""Soft filter pruning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from secateur.during import during
from secateur.errors import InputError
from secateur.schedules import share_at
from secateur.training.extensions import Extension, Moment, Scene
from secateur.training.removing import Removing
from secateur.training.units import along, lowest_units, slices, unit_norms


@during("soft-filters")
@dataclass(frozen=True)
class SoftFilters:
    """The filters of the smallest norm become zero after each epoch, and are trained on.

    What makes a unit (filters and their biases) is zeroed; the next epoch may bring it back. The
    share follows the schedule over the epochs. A validation sees the model without those units.
    until: share of the epochs after which the choice is final; the rest is trained without them.
    units: the share of all units that leaves at the end, exactly; the same share of every group
    with scope ``local`` as in the paper, the lowest norm per weight of all with ``global``.
    He et al., "Soft Filter Pruning for Accelerating Deep CNNs", IJCAI 2018.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"structure"})
    units: float = 0.5
    schedule: str = "one-shot"
    scope: str = "local"
    until: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.units, bool) or not 0 < self.units < 1:
            raise InputError(f"soft-filters: units is {self.units!r}; give a share, such as 0.5")
        if self.scope not in ("local", "global"):
            raise InputError(f"soft-filters: scope is {self.scope!r}; give 'local' or 'global'")
        share_at(self.schedule, 0.0, self.units)
        if not 0 < self.until <= 1:
            raise InputError(f"soft-filters: until is {self.until!r}; give a share, such as 0.5")

    def begin(self, scene: Scene) -> Extension:
        """Errors: InputError without a structure."""
        return _Soft(self, scene)


class _Soft(Removing):
    def __init__(self, settings: SoftFilters, scene: Scene) -> None:
        super().__init__(scene, "soft-filters")
        self.settings = settings
        self.groups = [
            g for g in self.structure.groups
            if slices(g, ("out",)) and all(m.tensor in self.parameters for m in slices(g))
        ]  # fmt: skip
        self._lowest(settings.units)  # a share that cannot leave is refused now

    @torch.no_grad()
    def after_epoch(self, at: Moment) -> None:
        if self.decided:
            return
        last = max(1, round(self.settings.until * at.epochs))
        progress = (at.epoch + 1) / last
        self.remove = self._lowest(
            share_at(self.settings.schedule, progress, self.settings.units)
        )  # fmt: skip
        if at.epoch + 1 >= last:
            self.decide(self.remove)
            return
        for group in self.groups:
            stays = torch.ones(group.size)
            stays[list(self.remove.get(group.name, ()))] = 0
            for member in slices(group, ("out",)):
                tensor = self.parameters[member.tensor]
                tensor.mul_(along(member, stays.to(tensor), tensor))

    def after_step(self, at: Moment) -> None:
        self.hold()

    def settled(self, at: Moment) -> bool:
        return self.decided

    def choose(self) -> dict[str, tuple[int, ...]]:
        return self.remove

    def _lowest(self, share: float) -> dict[str, tuple[int, ...]]:
        scores = {}
        for group in self.groups:
            norms, counts = unit_norms(group, self.parameters, ("out",))
            scores[group.name] = norms / counts.sqrt().clamp_min(1)
        if self.settings.scope == "global":
            return lowest_units(scores, share)
        parts = [lowest_units({name: score}, share) for name, score in scores.items()]
        return {name: units for part in parts for name, units in part.items()}

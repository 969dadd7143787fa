"""Growing regularisation: units chosen beforehand are pushed to zero little by little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from secateur.regularisers import regulariser
from secateur.regularisers._weights import positive, share, up_to_all
from secateur.training.extensions import Extension, Kept, Moment, Scene
from secateur.training.removing import Removing, parameter_masks
from secateur.training.units import lowest_units, unit_norms


@regulariser("growing")
@dataclass(frozen=True)
class Growing:
    """Units that shall leave get a weight decay that grows until they are almost zero (GReg-1).

    The units of the smallest norm per weight are chosen when the training begins; to them alone
    lambda / 2 |w|^2 is added, lambda rising by ``step`` every ``every`` updates up to
    ``ceiling``; w <- w (1 - rate * lambda) after each step of the optimizer.
    remove: share of all units that leaves. until: share of the training at which they become zero.
    Wang et al., "Neural Pruning via Growing Regularization", ICLR 2021.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"structure"})
    remove: float = 0.5
    step: float = 0.01
    every: int = 1
    ceiling: float = 1.0
    until: float = 0.7

    def __post_init__(self) -> None:
        share("growing", remove=self.remove)
        positive("growing", step=self.step, every=self.every, ceiling=self.ceiling)
        up_to_all("growing", until=self.until)

    def begin(self, scene: Scene) -> Extension:
        """Errors: InputError without a structure."""
        return _Grown(self, scene)


class _Grown(Removing):
    def __init__(self, settings: Growing, scene: Scene) -> None:
        super().__init__(scene, "growing")
        self.settings, self.strength = settings, 0.0
        scores = {}
        for group in self.structure.groups:
            norms, counts = unit_norms(group, self.parameters)
            scores[group.name] = norms / counts.sqrt().clamp_min(1)
        self._press(lowest_units(scores, settings.remove))

    def _press(self, remove: dict[str, tuple[int, ...]]) -> None:
        self.remove = remove
        self.pressed = parameter_masks(self.structure, remove, self.parameters)

    def choose(self) -> dict[str, tuple[int, ...]]:
        return self.remove

    @torch.no_grad()
    def after_step(self, at: Moment) -> None:
        if self.decided:
            self.hold()
            return
        grown = self.settings.step * ((at.update + 1) // self.settings.every)
        self.strength = min(self.settings.ceiling, grown)
        left = max(0.0, 1 - at.learning_rate * self.strength)
        for name, mask in self.pressed.items():
            weight = self.parameters[name]
            weight.copy_(torch.where(mask, weight, weight * left))
        if at.progress >= self.settings.until:
            self.decide(self.remove)

    def settled(self, at: Moment) -> bool:
        return self.decided

    def take_up(self, kept: Kept) -> None:
        super().take_up(kept)
        self._press(self.remove)

    def report(self) -> dict[str, float]:
        return {"growing_lambda": self.strength}

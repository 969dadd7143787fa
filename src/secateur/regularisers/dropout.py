"""Dropout that follows pruning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from secateur.errors import InputError
from secateur.regularisers import regulariser
from secateur.schedules import share_at
from secateur.training.extensions import Extension, Moment, Outcome, Scene


@regulariser("dropout")
@dataclass(frozen=True)
class Dropout:
    """Less dropout the sparser a net becomes: p = p0 sqrt(1 - s), of every dropout module.

    p0 is what a module was built with, s the share of zeros that the schedule has at this point: a
    net with fewer connections overfits less. zeros: the share at the end; give that of the method
    that prunes, and its schedule, start and until.
    Han et al., "Learning both Weights and Connections", NeurIPS 2015.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    zeros: float = 0.8
    schedule: str = "cubic"
    start: float = 0.0
    until: float = 0.75

    def __post_init__(self) -> None:
        share_at(self.schedule, 0.0, self.zeros)
        if not 0 <= self.start < self.until <= 1:
            raise InputError(
                f"dropout changes from {self.start!r} to {self.until!r} of the training; give two "
                "shares from 0 to 1, the lesser first"
            )

    def begin(self, scene: Scene) -> Extension:
        """Errors: InputError for a model without dropout modules."""
        found = [m for m in scene.model.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
        if not found:
            raise InputError(
                "dropout follows pruning in modules of dropout, and the model has none (after "
                "graph surgery there are no modules); leave it out"
            )
        return _Following(self, found)


class _Following(Extension):
    def __init__(self, settings: Dropout, modules: list) -> None:
        self.settings = settings
        self.modules = [(module, module.p) for module in modules]

    def before_forward(self, at: Moment) -> None:
        settings = self.settings
        place = (at.update / at.updates - settings.start) / (settings.until - settings.start)
        share = share_at(settings.schedule, place, settings.zeros)
        for module, built in self.modules:
            module.p = built * math.sqrt(1 - share)

    def finish(self) -> Outcome:
        for module, built in self.modules:
            module.p = built
        return Outcome()

    def report(self) -> dict[str, float]:
        return {"dropout": max(module.p for module, _ in self.modules)}

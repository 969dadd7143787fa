"""Network slimming."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from secateur.regularisers import regulariser
from secateur.regularisers._scales import Scaled
from secateur.regularisers._weights import from_zero, share, up_to_all
from secateur.training.extensions import Extension, Moment, Scene


@regulariser("slimming")
@dataclass(frozen=True)
class Slimming:
    """L1 on the scales of batch norms: units whose scale comes near zero can leave.

    The penalty is weight * sum |gamma|, by proximal steps gamma <- sign(gamma) max(|gamma| -
    rate * weight, 0), so that scales become exactly zero.
    remove: share of the units that leaves, those of the smallest mean |gamma| over all groups; with
            0 nothing does, and the criterion ``bn-scale`` may.
    until:  share of the training at which they are chosen and become zero; the rest of it repairs.
    Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"structure"})
    weight: float = 1e-3
    remove: float = 0.0
    until: float = 0.7

    def __post_init__(self) -> None:
        from_zero("slimming", weight=self.weight)
        share("slimming", remove=self.remove)
        up_to_all("slimming", until=self.until)

    def begin(self, scene: Scene) -> Extension:
        """Errors: InputError where there are no batch norms."""
        return _Slimmed(self, scene)


class _Slimmed(Scaled):
    def __init__(self, settings: Slimming, scene: Scene) -> None:
        super().__init__(scene, "slimming", settings.remove, settings.until)
        self.weight = settings.weight

    @torch.no_grad()
    def press(self, at: Moment) -> None:
        amount = at.learning_rate * self.weight
        for scale in self.vectors:
            scale.copy_(scale.sign() * (scale.abs() - amount).clamp_min(0))

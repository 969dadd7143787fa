"""Dynamic network surgery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from secateur.during import during
from secateur.during._masked import Behind
from secateur.during._window import Window, check_zeros, maskable
from secateur.errors import InputError
from secateur.masking import choose_masks
from secateur.schedules import share_at
from secateur.training.extensions import Extension, Moment, Scene


@during("network-surgery")
@dataclass(frozen=True)
class NetworkSurgery:
    """Weights are cut when they are small and spliced back when they grow: both learn on.

    Gradients of the masked network reach all weights, also those that are cut. One in front of the
    mask is cut below tau / (1 + band), one behind it comes back above tau, with tau such that
    exactly the share of zeros that the schedule wants is cut; between the two it stays what it is.
    zeros: the share at the end, exactly. scope: ``global``, ``local`` or ``erk``.
    Guo, Yao and Chen, "Dynamic Network Surgery for Efficient DNNs", NeurIPS 2016.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    zeros: float = 0.8
    band: float = 0.1
    schedule: str = "cubic"
    start: float = 0.0
    until: float = 0.75
    every: int | None = None
    scope: str = "global"
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_zeros("network-surgery", self.zeros)
        share_at(self.schedule, 0.0, self.zeros)
        if not self.band >= 0:
            raise InputError(f"network-surgery: band is {self.band!r}; give 0 or more, as 0.1")
        Window(self.start, self.until, self.every)

    def begin(self, scene: Scene) -> Extension:
        """Errors: InputError where there are no weights."""
        window = Window(self.start, self.until, self.every)
        return _Surgery(self, maskable(scene, "network-surgery", self.keep), window)


class _Surgery(Behind):
    through = True

    def __init__(self, settings: NetworkSurgery, weights: dict, window: Window) -> None:
        super().__init__(weights, window)
        self.settings = settings

    def renewed(self, at: Moment) -> dict[str, Tensor]:
        share = self.window.share(at, self.settings.schedule, self.settings.zeros)
        scores = {
            name: weight.detach().abs() * (1 + self.settings.band * self.masks[name])
            for name, weight in self.weights.items()
        }
        return choose_masks(scores, share, scope=self.settings.scope)

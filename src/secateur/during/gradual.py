"""Gradual magnitude pruning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from secateur.during import during
from secateur.during._masked import Behind
from secateur.during._window import Window, check_zeros, maskable
from secateur.masking import choose_masks
from secateur.schedules import share_at
from secateur.training.extensions import Extension, Moment, Scene


@during("gradual")
@dataclass(frozen=True)
class Gradual:
    """The smallest weights are masked, more and more of them: automated gradual pruning.

    From the share ``start`` of the training to ``until`` the share of zeros follows the schedule,
    by |w|; every mask is chosen anew among all weights, so that one may come back.
    zeros: the share at the end, exactly. scope: ``global``, ``local`` or ``erk``.
    every: updates between two masks. keep: names and globs of weights that stay whole.
    Zhu and Gupta, "To prune, or not to prune", 2017.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    zeros: float = 0.8
    schedule: str = "cubic"
    start: float = 0.0
    until: float = 0.75
    every: int | None = None
    scope: str = "global"
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_zeros("gradual", self.zeros)
        share_at(self.schedule, 0.0, self.zeros)
        Window(self.start, self.until, self.every)

    def begin(self, scene: Scene) -> Extension:
        """Errors: InputError where there are no weights."""
        window = Window(self.start, self.until, self.every)
        return _Gradual(self, maskable(scene, "gradual", self.keep), window)


class _Gradual(Behind):
    def __init__(self, settings: Gradual, weights: dict, window: Window) -> None:
        super().__init__(weights, window)
        self.settings = settings

    def renewed(self, at: Moment) -> dict[str, Tensor]:
        share = self.window.share(at, self.settings.schedule, self.settings.zeros)
        scores = {name: weight.detach().abs() for name, weight in self.weights.items()}
        return choose_masks(scores, share, scope=self.settings.scope)

"""Movement pruning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from secateur.during import during
from secateur.during._masked import Behind
from secateur.during._window import Window, check_zeros, maskable
from secateur.masking import choose_masks
from secateur.schedules import share_at
from secateur.training.extensions import Extension, Kept, Moment, Scene


@during("movement")
@dataclass(frozen=True)
class Movement:
    """Weights that move towards zero are masked, those that move away from it stay.

    Scores S <- S - rate * g * w at every update, with g the gradient of the masked network,
    straight through the masks, so that a masked weight can come back. For fine-tuning: a weight's
    sign and size come from what was learnt before.
    zeros: the share at the end, exactly. scope: ``local`` (each weight tensor by itself, as in
    the paper), ``global`` or ``erk``.
    Sanh, Wolf and Rush, "Movement Pruning", NeurIPS 2020.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    zeros: float = 0.8
    schedule: str = "cubic"
    start: float = 0.05
    until: float = 0.75
    every: int | None = None
    scope: str = "local"
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_zeros("movement", self.zeros)
        share_at(self.schedule, 0.0, self.zeros)
        Window(self.start, self.until, self.every)

    def begin(self, scene: Scene) -> Extension:
        """Errors: InputError where there are no weights."""
        window = Window(self.start, self.until, self.every)
        return _Moving(self, maskable(scene, "movement", self.keep), window)


class _Moving(Behind):
    def __init__(self, settings: Movement, weights: dict, window: Window) -> None:
        super().__init__(weights, window)
        self.settings = settings
        self.scores = {name: torch.zeros_like(w.detach()) for name, w in self.weights.items()}

    @torch.no_grad()
    def learn(self, at: Moment) -> None:
        for name, weight in self.weights.items():
            if weight.grad is not None:
                self.scores[name].sub_(at.learning_rate * weight.grad * weight)

    def renewed(self, at: Moment) -> dict[str, Tensor]:
        share = self.window.share(at, self.settings.schedule, self.settings.zeros)
        return choose_masks(self.scores, share, scope=self.settings.scope)

    def keep(self) -> Kept:
        scores = {f"score/{name}": score for name, score in self.scores.items()}
        return Kept({**super().keep().tensors, **scores})

    def take_up(self, kept: Kept) -> None:
        super().take_up(kept)
        self.scores = {name: kept.tensors[f"score/{name}"] for name in self.scores}

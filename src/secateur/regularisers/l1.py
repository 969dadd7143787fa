"""L1: the lasso, by proximal steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from secateur.regularisers import regulariser
from secateur.regularisers._weights import from_zero, matrices
from secateur.training.exchanging import Exchange
from secateur.training.extensions import Extension, Moment, Outcome, Scene


@regulariser("l1")
@dataclass(frozen=True)
class L1:
    """Weights shrink by the same amount at every update, and many become exactly zero.

    The penalty is weight * sum |w|. After each step w <- sign(w) max(|w| - rate * weight, 0), its
    proximal map: a subgradient in the loss never reaches zero, and adam would rescale it.
    weight:    lambda, how much the penalty weighs.
    threshold: another number: what is at most this large when the training ends is dropped.
    layers:    names and globs of weights; all of two dimensions or more where it is empty.
    Zeros at the end stay zero in later trainings. Tibshirani, "Regression shrinkage and selection
    via the lasso", 1996.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    weight: float = 1e-4
    threshold: float = 0.0
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        from_zero("l1", weight=self.weight, threshold=self.threshold)

    def begin(self, scene: Scene) -> Extension:
        """Errors: InputError where there are no weights."""
        return _Lasso(self, matrices(scene, "l1", self.layers))


class _Lasso(Extension):
    def __init__(self, settings: L1, weights: dict[str, nn.Parameter]) -> None:
        self.settings, self.weights = settings, weights
        self.exchange = Exchange()

    @torch.no_grad()
    def after_step(self, at: Moment) -> None:
        amount = at.learning_rate * self.settings.weight
        for weight in self.weights.values():
            weight.copy_(soft_threshold(weight, amount))

    def show(self) -> None:
        limit = self.settings.threshold
        self.exchange.put(
            {w: w.detach().masked_fill(w.detach().abs() <= limit, 0) for w in self.weights.values()}
        )

    def hide(self) -> None:
        self.exchange.back()

    def finish(self) -> Outcome:
        return Outcome({name: weight.detach() != 0 for name, weight in self.weights.items()})

    def report(self) -> dict[str, float]:
        zeros = sum(int((w.abs() <= self.settings.threshold).sum()) for w in self.weights.values())
        return {"l1_zeros": zeros / sum(w.numel() for w in self.weights.values())}


def soft_threshold(values: Tensor, amount: float) -> Tensor:
    """sign(v) max(|v| - amount, 0)."""
    return values.sign() * (values.abs() - amount).clamp_min(0)

"""Masks on weights that change in a training: weights behind a mask live on, or are zero."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from secateur.during._window import Window
from secateur.training.exchanging import Exchange
from secateur.training.extensions import Extension, Kept, Moment, Outcome


class Masked(Extension):
    """Masks of weights, in the checkpoint and in the outcome."""

    def __init__(self, weights: Mapping[str, nn.Parameter], window: Window) -> None:
        self.weights, self.window = dict(weights), window
        self.masks: dict[str, Tensor] = {
            name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()
        }

    def settled(self, at: Moment) -> bool:
        return self.window.over(at)

    def finish(self) -> Outcome:
        return Outcome(self.masks)

    def keep(self) -> Kept:
        return Kept({f"mask/{name}": mask for name, mask in self.masks.items()})

    def take_up(self, kept: Kept) -> None:
        self.masks = {name: kept.tensors[f"mask/{name}"] for name in self.masks}

    def report(self) -> dict[str, float]:
        total = sum(mask.numel() for mask in self.masks.values())
        return {"zeros": sum(int((~mask).sum()) for mask in self.masks.values()) / total}


class Behind(Masked):
    """The network runs with masked weights; what is behind the masks is kept and may come back.

    through: whether gradients of the masked weights reach all weights (straight through), or only
    those in front of the masks.
    """

    through = False

    def __init__(self, weights: Mapping[str, nn.Parameter], window: Window) -> None:
        super().__init__(weights, window)
        self.exchange = Exchange()

    def renewed(self, at: Moment) -> dict[str, Tensor]:
        """The masks from now on."""
        raise NotImplementedError

    def before_forward(self, at: Moment) -> None:
        self.show()

    def after_backward(self, at: Moment) -> None:
        self.exchange.back()
        self.learn(at)
        if not self.through:
            for name, weight in self.weights.items():
                if weight.grad is not None:
                    weight.grad.mul_(self.masks[name])

    def learn(self, at: Moment) -> None:
        """Gradients of the masked network are there, of all elements; the weights are whole."""

    def after_step(self, at: Moment) -> None:
        if self.window.due(at):
            self.masks = self.renewed(at)

    def show(self) -> None:
        self.exchange.put({w: w.detach() * self.masks[name] for name, w in self.weights.items()})

    def hide(self) -> None:
        self.exchange.back()

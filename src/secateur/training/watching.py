"""Sums that a training leaves behind, for the criterion ``movement``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from secateur.training.extensions import Extension, Kept, Moment, Outcome, Scene


@dataclass(frozen=True)
class WatchMovement:
    """Keeps -sum of w * gradient over the updates of a training, of every parameter.

        watch = WatchMovement()
        finetune(model, data, methods=[watch])
        plan = sc.plan(model, structure, Movement(sums=watch.sums), budget)

    sums: filled in when the training is over; name -> tensor of the parameter's shape.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    sums: dict[str, Tensor] = field(default_factory=dict, compare=False, metadata={"place": True})

    def begin(self, scene: Scene) -> Extension:
        """The extension for one training."""
        return _Watching(self.sums, scene.parameters())


class _Watching(Extension):
    def __init__(self, told: dict[str, Tensor], parameters: dict[str, nn.Parameter]) -> None:
        self.told, self.parameters = told, parameters
        self.sums = {name: torch.zeros_like(p.detach()) for name, p in parameters.items()}

    @torch.no_grad()
    def after_backward(self, at: Moment) -> None:
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                self.sums[name].sub_(parameter * parameter.grad)

    def finish(self) -> Outcome:
        self.told.update({name: total.cpu() for name, total in self.sums.items()})
        return Outcome()

    def keep(self) -> Kept:
        return Kept(self.sums)

    def take_up(self, kept: Kept) -> None:
        self.sums = dict(kept.tensors)

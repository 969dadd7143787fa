"""Sparse from the first step to the last: some weights are dropped, as many others grow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from secateur.during._masked import Masked
from secateur.during._window import Window
from secateur.masking import choose_masks
from secateur.training.extensions import Moment, Scene


class Settings(Protocol):
    """What methods of this kind are told."""

    @property
    def zeros(self) -> float: ...
    @property
    def drop(self) -> float: ...
    @property
    def scope(self) -> str: ...


class Growing(Masked):
    """Random masks to begin with; at each change the smallest weights of a layer go, others come.

    Those that come are never among those that just went; they begin at zero, and so do the
    optimizer's moments of them. How many weights a layer has never changes.
    """

    def __init__(
        self, settings: Settings, scene: Scene, weights: Mapping[str, nn.Parameter], window: Window
    ) -> None:
        super().__init__(weights, window)
        self.settings, self.optimizer = settings, scene.optimizer
        self.generator = scene.generator
        self.ranks: dict[str, Tensor] = {}
        scores = {name: self.drawn(weight) for name, weight in weights.items()}
        self.masks = choose_masks(scores, settings.zeros, scope=settings.scope)
        self._zero()

    def wanted(self, name: str, weight: nn.Parameter) -> Tensor:
        """What weights that may grow are ranked by, highest first."""
        raise NotImplementedError

    def drawn(self, weight: Tensor) -> Tensor:
        """Uniform numbers of a weight's shape."""
        device = self.generator.device
        return torch.rand(weight.shape, generator=self.generator, device=device).to(weight.device)

    @torch.no_grad()
    def after_backward(self, at: Moment) -> None:
        due = self.window.due(at)
        self.ranks = {n: self.wanted(n, w) for n, w in self.weights.items()} if due else {}
        for name, weight in self.weights.items():
            if weight.grad is not None:
                weight.grad.mul_(self.masks[name])

    @torch.no_grad()
    def after_step(self, at: Moment) -> None:
        self._zero()
        share = self.settings.drop / 2 * (1 + math.cos(math.pi * self.window.progress(at)))
        for name, ranks in self.ranks.items():
            self._exchange(name, ranks, share)
        self.ranks = {}

    def _exchange(self, name: str, ranks: Tensor, share: float) -> None:
        weight, mask = self.weights[name], self.masks[name].flatten()
        count = min(round(share * int(mask.sum())), int((~mask).sum()))
        if not count:
            return
        size = weight.detach().flatten().abs().masked_fill(~mask, math.inf)
        dropped = size.argsort(stable=True)[:count]
        grown = ranks.flatten().masked_fill(mask, -math.inf).argsort(descending=True, stable=True)
        grown = grown[:count]
        mask = mask.clone()
        mask[dropped], mask[grown] = False, True
        self.masks[name] = mask.view(weight.shape)
        weight.masked_fill_(~self.masks[name], 0)
        fresh = torch.zeros_like(mask)
        fresh[grown] = True
        fresh = fresh.view(weight.shape)
        weight.masked_fill_(fresh, 0)
        for moment in self.optimizer.state.get(weight, {}).values():
            if isinstance(moment, Tensor) and moment.shape == weight.shape:
                moment.masked_fill_(fresh, 0)

    @torch.no_grad()
    def _zero(self) -> None:
        for name, weight in self.weights.items():
            weight.masked_fill_(~self.masks[name], 0)

"""Robustness to salt-and-pepper noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from secateur.regularisers import regulariser
from secateur.regularisers._consistency import Consistency, drawn
from secateur.regularisers._weights import from_zero, share
from secateur.training.extensions import Extension, Scene


@regulariser("salt-and-pepper")
@dataclass(frozen=True)
class SaltAndPepper:
    """Answers shall not move when pixels turn black or white: weight * KL(f(x) || f(noisy x)).

    Each place turns into the smallest or the largest value of its batch, each with probability
    p / 2. Places of images [N, C, H, W] turn in all channels at once.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    weight: float = 1.0
    p: float = 0.05

    def __post_init__(self) -> None:
        from_zero("salt-and-pepper", weight=self.weight)
        share("salt-and-pepper", p=self.p)

    def begin(self, scene: Scene) -> Extension:
        """The extension for one training."""
        return _Peppered(self, scene)


class _Peppered(Consistency):
    def __init__(self, settings: SaltAndPepper, scene: Scene) -> None:
        super().__init__(settings.weight, scene, "salt-and-pepper")
        self.p = settings.p

    def noisy(self, values: Tensor) -> Tensor:
        return peppered(values, self.p, self.generator)


def peppered(values: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """Values with a share p of places set to their smallest or largest, as often the one as the
    other; places of four dimensions or more are those behind the second."""
    shape = list(values.shape)
    if len(shape) > 3:
        shape[1] = 1
    chance = drawn(values, generator, tuple(shape))
    dark = torch.where(chance < p / 2, values.min(), values)
    return torch.where((chance >= p / 2) & (chance < p), values.max(), dark)

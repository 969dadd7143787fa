"""Robustness to Gaussian noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from secateur.regularisers import regulariser
from secateur.regularisers._consistency import Consistency
from secateur.regularisers._weights import from_zero, positive
from secateur.training.extensions import Extension, Scene


@regulariser("gaussian-noise")
@dataclass(frozen=True)
class GaussianNoise:
    """Answers shall not move under Gaussian noise: weight * KL(f(x) || f(x + n)).

    n is drawn from N(0, sigma^2). A second pass on noisy inputs takes part in each update; for
    values in place of classes the distance is squared. For a linear model y = w x that is, on
    average over the noise, the ridge weight * sigma^2 |w|^2 for each sample. sigma is in the units
    of the inputs as the model gets them. Bishop, "Training with noise is
    equivalent to Tikhonov regularization", 1995.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    weight: float = 1.0
    sigma: float = 0.1

    def __post_init__(self) -> None:
        from_zero("gaussian-noise", weight=self.weight)
        positive("gaussian-noise", sigma=self.sigma)

    def begin(self, scene: Scene) -> Extension:
        """The extension for one training."""
        return _Gaussian(self, scene)


class _Gaussian(Consistency):
    def __init__(self, settings: GaussianNoise, scene: Scene) -> None:
        super().__init__(settings.weight, scene, "gaussian-noise")
        self.sigma = settings.sigma

    def noisy(self, values: Tensor) -> Tensor:
        noise = torch.randn(values.shape, generator=self.generator, device=self.generator.device)
        return values + self.sigma * noise.to(values)

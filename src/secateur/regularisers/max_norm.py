"""Rows of weights within a ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from secateur.regularisers import regulariser
from secateur.regularisers._weights import matrices, positive
from secateur.training.extensions import Extension, Moment, Scene


@regulariser("max-norm")
@dataclass(frozen=True)
class MaxNorm:
    """Rows of a weight longer than c are shortened to it after every step: |w_r| <= c.

    A row is all that makes one output: a filter, or the weights into one neuron.
    layers: names and globs of weights; all of two dimensions or more where it is empty.
    Srebro et al., "Maximum-Margin Matrix Factorization", 2005; with dropout: Srivastava et al.,
    JMLR 2014.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    limit: float = 3.0
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        positive("max-norm", limit=self.limit)

    def begin(self, scene: Scene) -> Extension:
        """Errors: InputError where there are no weights."""
        return _Balls(self.limit, list(matrices(scene, "max-norm", self.layers).values()))


class _Balls(Extension):
    def __init__(self, limit: float, weights: list[nn.Parameter]) -> None:
        self.limit, self.weights = limit, weights

    @torch.no_grad()
    def after_step(self, at: Moment) -> None:
        for weight in self.weights:
            weight.copy_(into_balls(weight, self.limit))


def into_balls(weight: Tensor, limit: float) -> Tensor:
    """The nearest tensor whose rows (of dimension 0) have a Euclidean norm of at most ``limit``."""
    norms = weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.dim() - 1))
    return weight * (limit / norms.clamp_min(limit))

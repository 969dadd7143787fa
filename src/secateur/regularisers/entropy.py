"""Entropy of how the magnitude of a layer is spread over its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from secateur.errors import InputError
from secateur.regularisers import regulariser
from secateur.regularisers._penalty import WeightPenalty
from secateur.regularisers._weights import from_zero, matrices
from secateur.training.extensions import Extension, Scene


@regulariser("entropy")
@dataclass(frozen=True)
class Entropy:
    """Entropy of p = |w| / sum |w| of each layer: few large weights, or all alike.

    The penalty is weight * sum over layers of -sum p log p (nats), added to minimise: magnitude
    gathers in few weights. With ``direction: maximise`` it is subtracted. It lies between 0 (one
    weight has all) and log n (all are alike), and does not change with the scale of the layer.
    layers: names and globs of weights; all of two dimensions or more where it is empty.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    weight: float = 1e-3
    direction: Literal["minimise", "maximise"] = "minimise"
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        from_zero("entropy", weight=self.weight)
        if self.direction not in ("minimise", "maximise"):
            raise InputError(
                f"entropy: direction is {self.direction!r}; give 'minimise' or 'maximise'"
            )

    def begin(self, scene: Scene) -> Extension:
        """Errors: InputError where there are no weights."""
        sign = 1 if self.direction == "minimise" else -1
        weights = matrices(scene, "entropy", self.layers).values()
        return WeightPenalty(sign * self.weight, weights, magnitude_entropy)


def magnitude_entropy(weight: Tensor) -> Tensor:
    """-sum p log p of p = |w| / sum |w|, a scalar; 0 for a tensor of zeros."""
    magnitude = weight.abs()
    p = magnitude / magnitude.sum().clamp_min(1e-12)
    return -(p * p.clamp_min(torch.finfo(weight.dtype).tiny).log()).sum()

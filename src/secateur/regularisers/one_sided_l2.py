"""L2 of what is above zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secateur.regularisers import regulariser
from secateur.regularisers._penalty import WeightPenalty
from secateur.regularisers._weights import from_zero, matrices
from secateur.training.extensions import Extension, Scene


@regulariser("one-sided-l2")
@dataclass(frozen=True)
class OneSidedL2:
    """Weights above zero shrink, those below are free: weight * sum max(0, w)^2 in the loss.

    layers: names and globs of weights; all of two dimensions or more where it is empty.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    weight: float = 1e-4
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        from_zero("one-sided-l2", weight=self.weight)

    def begin(self, scene: Scene) -> Extension:
        """Errors: InputError where there are no weights."""
        weights = matrices(scene, "one-sided-l2", self.layers).values()
        return WeightPenalty(self.weight, weights, lambda w: w.clamp_min(0).square().sum())

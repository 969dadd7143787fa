"""L2: weight decay as a penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secateur.regularisers import regulariser
from secateur.regularisers._penalty import WeightPenalty
from secateur.regularisers._weights import from_zero, matrices
from secateur.training.extensions import Extension, Scene


@regulariser("l2")
@dataclass(frozen=True)
class L2:
    """Weights shrink by a share of themselves: weight / 2 * sum w^2 in the loss.

    Nothing becomes zero by it. It is no reciprocal, and the gradient is weight * w.
    layers: names and globs of weights; all of two dimensions or more where it is empty.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    weight: float = 1e-4
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        from_zero("l2", weight=self.weight)

    def begin(self, scene: Scene) -> Extension:
        """Errors: InputError where there are no weights."""
        weights = matrices(scene, "l2", self.layers).values()
        return WeightPenalty(self.weight, weights, lambda w: w.square().sum() / 2)

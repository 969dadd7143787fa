"""SET: sparse evolutionary training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from secateur.during import during
from secateur.during._growing import Growing
from secateur.during._window import Window, check_zeros, maskable
from secateur.errors import InputError
from secateur.training.extensions import Extension, Scene


@during("set")
@dataclass(frozen=True)
class SparseEvolutionaryTraining:
    """Sparse all along: the smallest weights are dropped, others grow at random places.

    As ``rigl``, without a look at gradients.
    Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse
    connectivity", Nature Communications 2018.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    zeros: float = 0.8
    drop: float = 0.3
    until: float = 0.75
    every: int | None = None
    scope: str = "erk"
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_zeros("set", self.zeros)
        if not 0 < self.drop <= 1:
            raise InputError(f"set: drop is {self.drop!r}; give a share above 0, such as 0.3")
        Window(0.0, self.until, self.every)

    def begin(self, scene: Scene) -> Extension:
        """Errors: InputError where there are no weights."""
        weights = maskable(scene, "set", self.keep)
        return _Evolving(self, scene, weights, Window(0.0, self.until, self.every))


class _Evolving(Growing):
    def wanted(self, name: str, weight: nn.Parameter) -> Tensor:
        return self.drawn(weight)

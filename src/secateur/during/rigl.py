"""RigL: rigging the lottery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from secateur.during import during
from secateur.during._growing import Growing
from secateur.during._window import Window, check_zeros, maskable
from secateur.errors import InputError
from secateur.training.extensions import Extension, Scene


@during("rigl")
@dataclass(frozen=True)
class RigL:
    """Sparse all along: the smallest weights are dropped, those of the largest gradient grow.

    At each change a layer exchanges the share drop / 2 (1 + cos(pi p)) of its weights, p going from
    0 to 1 until the share ``until`` of the training; gradients of all elements are read for that.
    zeros: the share of zeros, exactly, from the first update to the last.
    scope: ``erk`` (densities by Erdos-Renyi kernel, as in the paper), ``global`` or ``local``.
    every: updates between two changes, 100 in the paper; left out, a hundredth of the training.
    Evci et al., "Rigging the Lottery", ICML 2020.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    zeros: float = 0.8
    drop: float = 0.3
    until: float = 0.75
    every: int | None = None
    scope: str = "erk"
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_zeros("rigl", self.zeros)
        if not 0 < self.drop <= 1:
            raise InputError(f"rigl: drop is {self.drop!r}; give a share above 0, such as 0.3")
        Window(0.0, self.until, self.every)

    def begin(self, scene: Scene) -> Extension:
        """Errors: InputError where there are no weights."""
        weights = maskable(scene, "rigl", self.keep)
        return _Rigged(self, scene, weights, Window(0.0, self.until, self.every))


class _Rigged(Growing):
    def wanted(self, name: str, weight: nn.Parameter) -> Tensor:
        grad = weight.grad
        return self.drawn(weight) if grad is None else grad.detach().abs()

"""Regularisers: what is added to a training so that weights, units or answers come out as wanted.

A file is a regulariser: a frozen dataclass of plain values, whose ``begin`` gives the extension for
one training (``training/extensions.py``).

    @regulariser("l2")
    @dataclass(frozen=True)
    class L2:
        needs: ClassVar[frozenset[str]] = frozenset()
        weight: float = 1e-4
        def begin(self, scene: Scene) -> Extension: ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from secateur.registry import Registry

if TYPE_CHECKING:
    from secateur.training.extensions import Method

REGULARISERS: Registry[Callable[..., Method]] = Registry(
    "regulariser", package="secateur.regularisers"
)
regulariser = REGULARISERS.register

__all__ = ["REGULARISERS", "regulariser"]

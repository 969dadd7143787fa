"""Methods that prune while a model is trained. A file is a method.

It registers a frozen dataclass of plain values, whose ``begin`` gives the extension for one
training (``training/extensions.py``). Each ends with exactly the share of zeros that
it was asked for.

    @during("rigl")
    @dataclass(frozen=True)
    class RigL:
        needs: ClassVar[frozenset[str]] = frozenset()
        zeros: float = 0.8
        def begin(self, scene: Scene) -> Extension: ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from secateur.registry import Registry

if TYPE_CHECKING:
    from secateur.training.extensions import Method

DURING: Registry[Callable[..., Method]] = Registry(
    "method during training", package="secateur.during"
)
during = DURING.register

__all__ = ["DURING", "during"]

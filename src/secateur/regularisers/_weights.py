"""Which weights a regulariser acts on, and checks of numbers, shared by its files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatch

from torch import nn

from secateur.errors import InputError
from secateur.training.extensions import Scene


def matrices(scene: Scene, name: str, layers: Sequence[str] = ()) -> dict[str, nn.Parameter]:
    """Trained tensors of two dimensions or more: weights, without biases and scales of norms.

    name: the method that asks. layers: names and globs of weights or of their modules; all where
    it is empty. Errors: InputError for names of no such weight, and where there is none.
    """
    found = {n: p for n, p in scene.parameters().items() if p.dim() > 1}
    if not found:
        raise InputError(f"{name} acts on weights of two dimensions or more, and none is trained")
    if not layers:
        return found
    chosen: dict[str, nn.Parameter] = {}
    for pattern in layers:
        some = {n: p for n, p in found.items() if _fits(n, pattern)}
        if not some:
            raise InputError(
                f"{name}.layers names {pattern!r}, which no trained weight is called; they are "
                f"{', '.join(found)}"
            )
        chosen |= some
    return {n: p for n, p in found.items() if n in chosen}


def _fits(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) or fnmatch(name, f"{pattern}.weight")


def positive(name: str, **values: float) -> None:
    """Errors: InputError for a number that is not above 0 and finite."""
    for key, value in values.items():
        if isinstance(value, bool) or not 0 < value < math.inf:
            raise InputError(f"{name}: {key} is {value!r}; give a number above 0")


def from_zero(name: str, **values: float) -> None:
    """Errors: InputError for a number that is negative or not finite."""
    for key, value in values.items():
        if isinstance(value, bool) or not 0 <= value < math.inf:
            raise InputError(f"{name}: {key} is {value!r}; give 0 or a number above it")


def up_to_all(name: str, **values: float) -> None:
    """Errors: InputError for a share out of (0, 1]."""
    for key, value in values.items():
        if isinstance(value, bool) or not 0 < value <= 1:
            raise InputError(f"{name}: {key} is {value!r}; give a share above 0, up to 1")


def share(name: str, **values: float) -> None:
    """Errors: InputError for a share out of [0, 1)."""
    for key, value in values.items():
        if isinstance(value, bool) or not 0 <= value < 1:
            raise InputError(f"{name}: {key} is {value!r}; give a share from 0 to below 1")

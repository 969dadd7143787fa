"""When a method acts, and on which weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from torch import nn

from secateur.errors import InputError
from secateur.repair.readers import readers, shared_readers
from secateur.repair.recurrences import recurrences
from secateur.schedules import share_at
from secateur.training.extensions import Moment, Scene


@dataclass(frozen=True)
class Window:
    """The part of a training in which masks change.

    start, until: shares of the training. every: updates between two changes; None is a hundredth
    of the training.
    Errors: InputError for values that are no such part.
    """

    start: float
    until: float
    every: int | None

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.until <= 1:
            raise InputError(
                f"masks change from {self.start!r} to {self.until!r} of the training; give two "
                "shares from 0 to 1, the lesser first"
            )
        if self.every is not None and (self.every < 1 or self.every != int(self.every)):
            raise InputError(f"every is {self.every!r}; give a whole number of updates from 1 up")

    def first(self, at: Moment) -> int:
        """Updates that are done when masks may first change."""
        return min(round(self.start * at.updates), self.last(at) - 1)

    def last(self, at: Moment) -> int:
        """Updates that are done when masks change for the last time; never after the end."""
        return max(1, min(at.updates, round(self.until * at.updates)))

    def due(self, at: Moment) -> bool:
        """Whether masks change after the update under way."""
        done, first, last = at.update + 1, self.first(at), self.last(at)
        every = self.every or max(1, at.updates // 100)
        return first <= done <= last and ((done - first) % every == 0 or done == last)

    def over(self, at: Moment) -> bool:
        """Whether the last change is made once the update under way is done."""
        return at.update + 1 >= self.last(at)

    def progress(self, at: Moment) -> float:
        """Where in the window the update under way ends, in [0, 1]."""
        first, last = self.first(at), self.last(at)
        return min(1.0, max(0.0, (at.update + 1 - first) / (last - first)))

    def share(self, at: Moment, schedule: str, end: float) -> float:
        """The share of zeros that a schedule wants after the update under way."""
        return share_at(schedule, self.progress(at), end)


def check_zeros(name: str, zeros: float) -> None:
    """Errors: InputError for a share out of (0, 1)."""
    if isinstance(zeros, bool) or not 0 < zeros < 1:
        raise InputError(f"{name}: zeros is {zeros!r}; give a share above 0 and below 1, as 0.8")


def maskable(scene: Scene, name: str, keep: Sequence[str]) -> dict[str, nn.Parameter]:
    """Trained weights whose elements may become zero.

    With a structure those are the weights of linear layers, convolutions and recurrences, without
    one all trained tensors of two dimensions or more. keep: names and globs of those that stay
    whole.
    Errors: InputError for names of no such weight, and where none is left.
    """
    found = {n: p for n, p in scene.parameters().items() if p.dim() > 1}
    if scene.structure is not None:
        read = {reader.weight for reader in readers(scene.structure)}
        read |= {some[0].weight for some in shared_readers(scene.structure)}
        for layers in recurrences(scene.structure).values():
            read |= {weight for layer in layers for weight, _ in layer.maps()}
        found = {n: p for n, p in found.items() if n in read}
    for pattern in keep:
        left = {n: p for n, p in found.items() if not _fits(n, pattern)}
        if len(left) == len(found):
            raise InputError(
                f"{name}.keep names {pattern!r}, which no weight that could be cut is called; they "
                f"are {', '.join(found)}"
            )
        found = left
    if not found:
        raise InputError(f"{name} zeroes weights of linear layers, and none is trained here")
    return found


def _fits(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) or fnmatch(name, f"{pattern}.weight")

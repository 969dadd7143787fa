"""Who is told how a run goes."""

from __future__ import annotations

from typing import Any, Protocol


class Listener(Protocol):
    """Hears of stages and of progress inside them."""

    def begin(self, stage: str, total: int | None = None) -> None:
        """A stage starts; total: number of ticks to expect, if known."""
        ...

    def tick(self, stage: str, done: int, note: str = "") -> None:
        """``done`` of the stage's total is reached."""
        ...

    def end(self, stage: str, note: str, reused: bool = False) -> None:
        """The stage is done; ``reused``: it was done before and its result was read back."""
        ...

    def say(self, text: str) -> None:
        """A remark."""
        ...

    def folder(self, path: str) -> None:
        """Where the run is kept: from here on it can be resumed."""
        ...


class Silent:
    """Hears and keeps quiet."""

    def begin(self, stage: str, total: int | None = None) -> None:
        """Nothing."""

    def tick(self, stage: str, done: int, note: str = "") -> None:
        """Nothing."""

    def end(self, stage: str, note: str, reused: bool = False) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def folder(self, path: str) -> None:
        """Nothing."""


def points(before: float, after: float) -> str:
    """A change of a share in points, ``-0.3 points``."""
    return f"{100 * (after - before):+.2f} points"


def plain(value: Any) -> Any:
    """JSON values of dataclasses' fields: tuples as lists, numbers as numbers."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value

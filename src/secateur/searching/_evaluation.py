"""What a point was worth, and who finds out."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from secateur.errors import InputError
from secateur.searching._space import Point

Evaluate = Callable[[Point], float | Sequence[float]]


@dataclass(frozen=True)
class Evaluation:
    """What a point was worth, in each objective; infinite where it failed: ``error`` says why."""

    point: Point
    values: tuple[float, ...]
    seconds: float
    error: str = ""

    @property
    def value(self) -> float:
        """In the first objective."""
        return self.values[0]


class Engine(Protocol):
    """Evaluates points.

    begin:  a new point; it may be evaluated from now on.
    answer: what a point that was begun is worth; waits for it.
    """

    def begin(self, point: Point) -> None: ...
    def answer(self, point: Point) -> Evaluation: ...


class Here:
    """This process, when the answer is wanted. timeout: seconds of an evaluation at most."""

    def __init__(self, evaluate: Evaluate, objectives: int = 1, timeout: float = math.inf) -> None:
        self._evaluate, self._objectives, self._timeout = evaluate, objectives, timeout

    def begin(self, point: Point) -> None:
        """Nothing yet."""

    def answer(self, point: Point) -> Evaluation:
        """Evaluate it."""
        return evaluated(self._evaluate, point, self._objectives, self._timeout)


class _Late(Exception):
    """An evaluation took too long."""


def evaluated(
    evaluate: Evaluate, point: Point, objectives: int = 1, timeout: float = math.inf
) -> Evaluation:
    """What a point is worth; never raises an Exception of the evaluation: that is a failed trial.

    timeout: seconds, kept by a timer signal; code that never comes back to Python is not stopped.
    Errors: InputError for a timeout outside of the main thread, where there are no such signals.
    """
    if math.isfinite(timeout) and threading.current_thread() is not threading.main_thread():
        raise InputError(
            "a timeout of trials needs workers where the search is not in the main thread"
        )
    begun = time.perf_counter()
    values: tuple[float, ...] = ()
    try:
        with _limited(timeout):
            found = evaluate(point)
        values = tuple(map(float, found)) if isinstance(found, Sequence) else (float(found),)
        error = complaint(values, objectives)
    except _Late:
        error = too_long(timeout)
    except Exception as failure:  # an evaluation may be a user's
        error = f"{type(failure).__name__}: {failure}"
    seconds = time.perf_counter() - begun
    return Evaluation(point, (math.inf,) * objectives if error else values, seconds, error)


def failed(point: Point, objectives: int, seconds: float, error: str) -> Evaluation:
    """A trial that has no value."""
    return Evaluation(point, (math.inf,) * objectives, seconds, error)


def too_long(timeout: float) -> str:
    """What is said of a trial that was ended."""
    return f"it took more than {timeout:g} s"


def complaint(values: tuple[float, ...], objectives: int) -> str:
    """What is wrong with values; empty where nothing is."""
    if len(values) != objectives:
        return f"{len(values)} values were given for {objectives} objectives"
    if all(map(math.isfinite, values)):
        return ""
    return f"the value is {values[0] if objectives == 1 else values}"


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    if not math.isfinite(seconds):
        yield
        return

    def late(*_: object) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

"""What a point was worth, and who finds out."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from secateur.errors import InputError
from secateur.searching._space import Partly, Point, Question, asked

# Where a problem has no shares no Partly is asked for, and plain points are all that comes.
Evaluate = Callable[[Any], float | Sequence[float]]


@dataclass(frozen=True)
class Evaluation:
    """What a point was worth, in each objective; infinite where it failed: ``error`` says why.

    share: of a full evaluation that this one took.
    """

    point: Point
    values: tuple[float, ...]
    seconds: float
    error: str = ""
    share: float = 1.0

    @property
    def question(self) -> Question:
        """What was asked."""
        return self.point if self.share == 1 else Partly(self.point, self.share)

    @property
    def value(self) -> float:
        """In the first objective."""
        return self.values[0]


class Engine(Protocol):
    """Evaluates points.

    begin:  a new point, or a cheap evaluation of one; it may be evaluated from now on.
    answer: what a point that was begun is worth; waits for it.
    """

    def begin(self, point: Question) -> None: ...
    def answer(self, point: Question) -> Evaluation: ...


class Here:
    """This process, when the answer is wanted. timeout: seconds of an evaluation at most."""

    def __init__(self, evaluate: Evaluate, objectives: int = 1, timeout: float = math.inf) -> None:
        self._evaluate, self._objectives, self._timeout = evaluate, objectives, timeout

    def begin(self, point: Question) -> None:
        """Nothing yet."""

    def answer(self, point: Question) -> Evaluation:
        """Evaluate it."""
        return evaluated(self._evaluate, point, self._objectives, self._timeout)


class _Late(BaseException):
    """An evaluation took too long; no Exception, which the user's code may catch or rename."""


def evaluated(
    evaluate: Evaluate, question: Question, objectives: int = 1, timeout: float = math.inf
) -> Evaluation:
    """What a point is worth; never raises an Exception of the evaluation: that is a failed trial.

    timeout: seconds, kept by a timer signal; code that never comes back to Python is not stopped.
    What took longer is a failed trial, whatever came of it.
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
            found = evaluate(question)
        values = _numbers(found)
        error = complaint(values, objectives)
    except _Late:
        error = too_long(timeout)
    except Exception as failure:  # an evaluation may be a user's
        error = f"{type(failure).__name__}: {failure}"
    seconds = time.perf_counter() - begun
    if seconds > timeout:  # the signal may have been caught, or come while an error was handled
        error = too_long(timeout)
    point, share = asked(question)
    values = (math.inf,) * objectives if error else values
    return Evaluation(point, values, seconds, error, share)


def failed(question: Question, objectives: int, seconds: float, error: str) -> Evaluation:
    """A trial that has no value."""
    point, share = asked(question)
    return Evaluation(point, (math.inf,) * objectives, seconds, error, share)


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


def _numbers(found: Any) -> tuple[float, ...]:
    """A number, or each of a sequence, an array or a tensor of one dimension."""
    if hasattr(found, "tolist"):  # of numpy, torch and pandas
        found = found.tolist()
    if isinstance(found, Iterable) and not isinstance(found, str):
        return tuple(map(float, found))
    return (float(found),)


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

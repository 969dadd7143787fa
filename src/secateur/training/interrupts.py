"""Ctrl-C where a training is whole: between two updates of the weights, never within one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Guard:
    """Holds a Ctrl-C back until ``check``; inside ``open()``, and the second time, it is raised.

    torn: an update is under way, or ended with an error: the weights are of no moment in time.
    """

    def __init__(self) -> None:
        self.torn = False
        self._asked = False
        self._open = False

    @contextmanager
    def update(self) -> Iterator[None]:
        """Around one update of the weights."""
        self.torn = True
        yield  # an error leaves it torn
        self.torn = False

    @contextmanager
    def open(self) -> Iterator[None]:
        """Around what may be broken off anywhere, such as a validation."""
        self.check()
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def check(self) -> None:
        """Errors: KeyboardInterrupt where one was held back."""
        if self._asked:
            self._asked = False
            raise KeyboardInterrupt

    def handle(self, number: int, frame: Any) -> None:
        """What stands in for Python's own handler of SIGINT."""
        if self._open or self._asked:
            raise KeyboardInterrupt
        self._asked = True


@contextmanager
def guarded() -> Iterator[Guard]:
    """A guard that handles SIGINT; where somebody else does, or in a thread, it only keeps book."""
    guard = Guard()
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield guard
        return
    signal.signal(signal.SIGINT, guard.handle)
    try:
        yield guard
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    guard.check()

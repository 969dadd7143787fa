"""What a worker does: claim a trial, evaluate it, write down its worth, say that it lives."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from secateur.searching._evaluation import Evaluate, evaluated, failed, too_long
from secateur.searching._ledger import Ledger, Row
from secateur.searching._space import Question

OWN = ("here-", "local-", "ray-")  # how names of workers begin that die with a search
HUNG = 75  # exit status of a worker that ended itself and its trial


@dataclass(frozen=True)
class Tempo:
    """Seconds: between looks at a ledger, the first and the longest; between signs of life of a
    worker; without one until it is taken for dead; after a timeout until others end a trial."""

    looks: tuple[float, float] = (0.01, 0.25)
    beat: float = 5.0
    dead: float = 30.0
    grace: float = 5.0

    def wait(self, before: float) -> float:
        """Sleep, and how long to sleep the next time."""
        time.sleep(before)
        return min(self.looks[1], 1.5 * before)


TEMPO = Tempo()


def serve(
    ledger: Ledger,
    evaluate: Evaluate,
    name: str,
    *,
    timeout: float = math.inf,
    tempo: Tempo = TEMPO,
    goes_on: Callable[[], bool] = lambda: True,
    tell: Callable[[Row], None] = lambda row: None,
) -> int:
    """Evaluate waiting trials until the search has ended; how many they were.

    name: of this worker, no other one's. timeout: a trial that takes longer is written as failed,
    and the process ends with the status ``HUNG``: what hangs cannot be ended otherwise. goes_on:
    asked between trials. tell: hears of every trial when it is done.
    Errors: InputError where the ledger cannot be read or written.
    """
    heart = _Heart(ledger, name, timeout, tempo)
    count, pause = 0, tempo.looks[0]
    try:
        while goes_on() and not ledger.ended:
            heart.check()
            row = claimed(ledger, name)
            if row is None:
                pause = tempo.wait(pause)
                continue
            pause = tempo.looks[0]
            try:
                with heart.of(row):
                    found = evaluated(evaluate, row.point, ledger.objectives)
            except BaseException:
                ledger.give_back(row)
                raise
            if ledger.finish(row, found, name):
                count += 1
                tell(row)
    finally:
        heart.stop()
    return count


def taken_over(ledger: Ledger) -> dict[Question, int]:
    """The numbers of all points of a ledger, for the process that searches from now on: what an
    earlier one and its own workers had under way waits again."""
    numbers = {}
    for row in ledger.rows():
        numbers[row.point] = row.number
        if row.state == "running" and row.worker.startswith(OWN):
            ledger.give_back(row)
    ledger.end(False)
    return numbers


def claimed(ledger: Ledger, name: str) -> Row | None:
    """The first trial that waits, taken; None where none does."""
    for row in ledger.rows():
        if row.state == "waiting" and ledger.claim(row, name):
            return row
    return None


def end_with_parent() -> None:
    """For a worker that another process started: end when the pipe from it closes, however it
    came to its end."""

    def listen() -> None:
        while os.read(0, 1):
            pass
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()


class _Heart:
    """A thread that says that the worker lives, and ends it where its trial takes too long."""

    def __init__(self, ledger: Ledger, name: str, timeout: float, tempo: Tempo) -> None:
        self._ledger, self._name = ledger, name
        self._timeout, self._tempo = timeout, tempo
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._row: Row | None = None
        self._since = 0.0
        self._failure: BaseException | None = None
        ledger.beat(name, 0)
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def of(self, row: Row) -> _Heart:
        """With the trial under way: a context."""
        with self._lock:
            self._row, self._since = row, time.monotonic()
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._row = None

    def check(self) -> None:
        """Raise what stopped it."""
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """No more of it."""
        self._stopped.set()
        self._thread.join()

    def _live(self) -> None:
        count, beaten = 0, time.monotonic()
        step = min(self._tempo.beat, self._timeout / 10)
        try:
            while not self._stopped.wait(step):
                self._end_what_hangs()
                if time.monotonic() - beaten >= self._tempo.beat:
                    count, beaten = count + 1, time.monotonic()
                    self._ledger.beat(self._name, count)
        except BaseException as failure:  # the main thread raises it
            self._failure = failure

    def _end_what_hangs(self) -> None:
        with self._lock:  # held to the end: the main thread must not go on with another trial
            seconds = time.monotonic() - self._since
            if self._row is None or seconds <= self._timeout:
                return
            error = too_long(self._timeout)
            lost = failed(self._row.point, self._ledger.objectives, seconds, error)
            self._ledger.finish(self._row, lost, self._name)
            said = f"error: trial {self._row.number + 1}: {error}; its worker ends with it\n"
            os.write(2, said.encode())
            os._exit(HUNG)

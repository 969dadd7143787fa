"""Latency is measured alone: trials of workers and measurements of a run exclude each other.

Order does most of it: the workers that a search of widths starts are gone when it ends. Those that
joined it, and trials of recipes, in which something may be timed, are held by locks in the folder
that they share.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

STUDY = "study"  # folder of a run; without it no worker ever came
LOCK, GATE = "busy.lock", "gate.lock"
PATIENCE, LOOK = 600.0, 0.02  # seconds


@contextmanager
def quiet(folder: Path) -> Iterator[None]:
    """For a measurement: waits for the trials that are under way; none begins meanwhile.

    A worker that holds it up for ``PATIENCE`` is taken for a frozen one, which takes no time of
    the machine.
    """
    if not (folder / STUDY).is_dir():
        yield
        return
    with (folder / STUDY / LOCK).open("a") as file, _first(folder, PATIENCE):
        _wait(file, PATIENCE)
        yield


@contextmanager
def busy(folder: Path) -> Iterator[None]:
    """For a trial of a worker, and what it makes ready: waits for a measurement."""
    with (folder / STUDY / LOCK).open("a") as file:
        _share(folder, file)
        yield


class Turns:
    """Of a process that makes trials in which something may be timed.

    folder: of the run. patience: seconds until a worker that holds a measurement up is taken for
    a frozen one.
    """

    def __init__(self, folder: Path, patience: float = PATIENCE) -> None:
        (folder / STUDY).mkdir(parents=True, exist_ok=True)
        self._folder, self._patience = folder, patience
        self._file: IO[str] | None = None  # of the trial under way

    @contextmanager
    def trial(self) -> Iterator[None]:
        """While a trial is made; a measurement of another process is waited for."""
        with (self._folder / STUDY / LOCK).open("a") as file:
            _share(self._folder, file)
            self._file = file
            try:
                yield
            finally:
                self._file = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While something is timed, also in a trial: two that wait for each other would wait for
        ever, so the trial's own share of the machine is given back first."""
        if self._file is None:
            place = self._folder / STUDY / LOCK
            with place.open("a") as file, _first(self._folder, self._patience):
                _wait(file, self._patience)
                yield
            return
        fcntl.flock(self._file, fcntl.LOCK_UN)
        try:
            with _first(self._folder, self._patience):
                _wait(self._file, self._patience)
                yield
                fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            _share(self._folder, self._file)


@contextmanager
def _first(folder: Path, patience: float) -> Iterator[None]:
    """Before all trials that have not begun: they pass the same gate, and a measurement would wait
    for ever where one trial always begins before another ends."""
    with (folder / STUDY / GATE).open("a") as file:
        _wait(file, patience)
        yield


def _share(folder: Path, file: IO[str]) -> None:
    with (folder / STUDY / GATE).open("a") as gate:
        fcntl.flock(gate, fcntl.LOCK_SH)
        fcntl.flock(file, fcntl.LOCK_SH)


def _wait(file: IO[str], patience: float) -> None:
    ends = time.monotonic() + patience
    while not _taken(file) and time.monotonic() < ends:
        time.sleep(LOOK)


def _taken(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

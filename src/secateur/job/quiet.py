"""Latency is measured alone: trials of workers and measurements of a run exclude each other.

Order does most of it: the workers that a search starts are gone when it ends. Those that joined it
are held by a lock in the folder that they share.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

STUDY = "study"  # folder of a run; without it no worker ever came
LOCK = "busy.lock"
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
    with (folder / STUDY / LOCK).open("a") as file:
        ends = time.monotonic() + PATIENCE
        while not _taken(file) and time.monotonic() < ends:
            time.sleep(LOOK)
        yield


@contextmanager
def busy(folder: Path) -> Iterator[None]:
    """For a trial of a worker, and what it makes ready: waits for a measurement."""
    with (folder / STUDY / LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def _taken(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

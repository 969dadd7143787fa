"""Latency is measured alone: trials of workers and measurements of a run exclude each other.

Order does most of it: the workers that a search starts are gone when it ends. Those that joined it
are held by a lock in the folder that they share.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STUDY = "study"  # folder of a run; without it no worker ever came
LOCK = "busy.lock"


@contextmanager
def quiet(folder: Path) -> Iterator[None]:
    """For a measurement: waits for the trials that are under way; none begins meanwhile."""
    if not (folder / STUDY).is_dir():
        yield
        return
    with _held(folder, fcntl.LOCK_EX):
        yield


@contextmanager
def busy(folder: Path) -> Iterator[None]:
    """For a trial of a worker, and what it makes ready: waits for a measurement."""
    with _held(folder, fcntl.LOCK_SH):
        yield


@contextmanager
def _held(folder: Path, kind: int) -> Iterator[None]:
    with (folder / STUDY / LOCK).open("a") as file:
        fcntl.flock(file, kind)
        yield

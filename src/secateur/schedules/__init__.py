"""Schedules: the share that has been removed, as a function of progress. A file is a schedule.

    @schedule("linear")
    def linear(progress: float, end: float) -> float: ...

Pure functions: nothing to store and nothing to step. ``share_at`` checks what goes in.
"""

from __future__ import annotations

from typing import Protocol

from secateur.errors import InputError
from secateur.registry import Registry


class Schedule(Protocol):
    """The share removed at ``progress`` in [0, 1] of the way to ``end`` in [0, 1].

    Never falls, and is exactly ``end`` at progress 1.
    """

    def __call__(self, progress: float, end: float) -> float: ...


SCHEDULES: Registry[Schedule] = Registry("schedule", package="secateur.schedules")
schedule = SCHEDULES.register


def share_at(name: str, progress: float, end: float) -> float:
    """The share removed at ``progress``: 0 or more, ``end`` from progress 1 on.

    Errors: InputError for an unknown schedule, and for a share out of [0, 1).
    """
    found = SCHEDULES.get(name)
    if isinstance(end, bool) or not 0 <= end < 1:
        raise InputError(f"the share to remove is {end!r}; give 0 to below 1, such as 0.8")
    return end if progress >= 1 else found(max(0.0, progress), end)


__all__ = ["SCHEDULES", "Schedule", "schedule", "share_at"]

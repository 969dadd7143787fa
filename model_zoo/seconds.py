"""Seconds of trace, apply and check, and what of them is torch.export's."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from secateur.structure import parts

IN_TRACE, IN_APPLY = "export in trace", "export in apply"


class Clock:
    """Seconds by part, into a row."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.seconds = row.setdefault("seconds", {})

    def __call__(self, part: str) -> Clock:
        self.part, self.start = part, time.perf_counter()
        return self

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self.seconds[self.part] = round(time.perf_counter() - self.start, 3)


@contextmanager
def export_timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """What of the time goes to torch.export, which is not ours."""
    original = parts.capture

    def timed(*given: Any) -> Any:
        start = time.perf_counter()
        try:
            return original(*given)
        finally:
            spent = time.perf_counter() - start
            seconds[part] = round(seconds.get(part, 0.0) + spent, 3)

    parts.capture = timed
    try:
        yield
    finally:
        parts.capture = original


def total_seconds(row: Mapping[str, Any]) -> float:
    """Seconds of trace, apply and check; what a model took that failed."""
    seconds = row.get("seconds", {})
    return sum(seconds.get(part, 0.0) for part in ("trace", "apply", "check"))


def own_seconds(row: Mapping[str, Any]) -> float:
    """Seconds of trace and apply outside torch.export."""
    seconds = row["seconds"]
    exports = seconds.get(IN_TRACE, 0.0) + seconds.get(IN_APPLY, 0.0)
    return seconds["trace"] + seconds["apply"] - exports

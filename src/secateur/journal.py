"""The run folder's memory: an append-only file of finished stages, one JSON object a line."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.errors import InputError

NAME = "journal.jsonl"


@dataclass(frozen=True)
class Journal:
    """Events of a run. A stage is done when its event is in the file, and not before.

    An event is ``{"stage": str, "at": seconds of work since the start, "seconds": float, ...}``;
    a last line that a crash cut short is dropped, and so is what it stood for.
    """

    folder: Path

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / NAME

    def events(self) -> Iterator[dict[str, Any]]:
        """All whole events in order. Errors: InputError for a line in the middle that is broken."""
        if not self.path.is_file():
            return
        lines = self.path.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                event = json.loads(line)
            except ValueError as error:
                if number == len(lines):  # cut short: no newline behind it
                    return
                raise InputError(
                    f"{self.path}:{number} is not JSON ({error}); this is no journal of a run"
                ) from error
            yield event

    def done(self, stage: str) -> dict[str, Any] | None:
        """The event of a finished stage, or None."""
        return next((event for event in self.events() if event.get("stage") == stage), None)

    def append(self, stage: str, started: float, result: dict[str, Any]) -> dict[str, Any]:
        """Write that a stage is done; on disk when this returns.

        started: time.perf_counter() when the stage began.
        """
        seconds = time.perf_counter() - started
        event = {"stage": stage, "at": self.worked() + seconds, "seconds": seconds, **result}
        drop_partial_line(self.path)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return event

    def worked(self) -> float:
        """Seconds of all finished stages."""
        return sum(float(event.get("seconds", 0.0)) for event in self.events())


def drop_partial_line(path: Path) -> None:
    """Cut off a last line that has no end: what is appended would stand behind it."""
    if not path.is_file():
        return
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        with path.open("r+b") as file:
            file.truncate(whole)

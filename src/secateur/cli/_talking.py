"""How commands talk: progress on standard error, results on standard output."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column

LINES, PAUSE = 10, 10.0  # of a stage in a log, and seconds after which there is one more
STEPS = 10  # the last ones of a stage, which its remaining time is told from


class Pace:
    """How long a stage still takes: by the median of its last steps, for the first ones of a stage
    that goes on where it stopped take no time."""

    def __init__(self, now: float) -> None:
        self._last, self._done = now, 0
        self._steps: deque[float] = deque(maxlen=STEPS)

    def left(self, now: float, done: int, total: int) -> float | None:
        """Seconds, when ``done`` of ``total`` are reached; None as long as nothing is known."""
        more = done - self._done
        known = self._done == 0 and more > 1  # were done before this stage began
        if more > 0 and not known:
            self._steps.append((now - self._last) / more)
        if more > 0:
            self._last, self._done = now, done
        return median(self._steps) * (total - done) if self._steps else None


class Talk:
    """Progress with an ETA on a terminal, plain lines elsewhere, nothing with ``--json``."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.run: str | None = None
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self._live = not quiet and self.console.is_terminal
        self._tasks: dict[str, TaskID] = {}
        self._paces: dict[str, Pace] = {}
        self._totals: dict[str, int | None] = {}
        self._said: dict[str, tuple[int, float]] = {}  # tenths that a log has, and since when
        self.progress = Progress(
            TextColumn("{task.description:14}"),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True)),
            console=self.console,
            disable=not self._live,
        )

    def begin(self, stage: str, total: int | None = None) -> None:
        """A stage starts."""
        self._paces[stage] = Pace(time.perf_counter())
        self._totals[stage] = total
        self._said.pop(stage, None)
        if self._live:
            self._tasks[stage] = self.progress.add_task(stage, total=total, note="", left="")

    def tick(self, stage: str, done: int, note: str = "") -> None:
        """``done`` of the stage's total is reached."""
        total, left = self._totals.get(stage), None
        if total and 0 < done < total:
            left = self._paces[stage].left(time.perf_counter(), done, total)
        rest = f"{duration(left)} left" if left is not None else ""
        if self._live and stage in self._tasks:
            self.progress.update(self._tasks[stage], completed=done, note=note, left=rest)
            return
        if total and not self._is_due(stage, done, total):
            return
        place = f" {done}/{total}" if total else ""
        self.say(f"{stage}{place}: {note}{', ' if rest else ''}{rest}")

    def _is_due(self, stage: str, done: int, total: int) -> bool:
        """Whether a log wants this step: the first one, each tenth of the way, and what comes long
        after the last line."""
        tenth, now = LINES * done // total, time.perf_counter()
        before, said = self._said.get(stage, (-1, now))
        if tenth <= before and now - said < PAUSE:
            return False
        self._said[stage] = tenth, now
        return True

    def end(self, stage: str, note: str, reused: bool = False) -> None:
        """The stage is done."""
        if self._live and stage in self._tasks:
            self.progress.remove_task(self._tasks.pop(stage))  # what is done is a line above
        kept = " (done before)" if reused else ""
        self.say(f"{stage}: {note}{kept}")

    def say(self, text: str) -> None:
        """A remark."""
        # One line stays one line: what reads a log has no width.
        self.console.print(text, markup=False, soft_wrap=not self._live)

    def folder(self, path: str) -> None:
        """Where the run is kept."""
        self.run = path
        self.say(f"run: {path}")


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def talking(as_json: bool, again: str = "") -> Iterator[Talk]:
    """A listener for one command; on Ctrl-C the resume command is printed and 130 returned.

    again: said instead, by commands that go on where they are called a second time.
    """
    talk = Talk(quiet=as_json)
    try:
        with talk.progress:
            yield talk
    except KeyboardInterrupt:
        where = f"; go on with: secateur resume {talk.run}" if talk.run else ""
        where = f"; {again}" if again else where
        print(f"interrupted{where}", file=sys.stderr)
        raise typer.Exit(130) from None


def answer(document: Any) -> None:
    """One JSON object on standard output, nothing else."""
    print(json.dumps(document, indent=1, default=str))


def finish(metrics: dict[str, Any], as_json: bool, folder: str | None) -> None:
    """The result of a run; exits with 3 when the target was not reached."""
    from secateur.reports.terminal import print_table

    if as_json:
        answer({**metrics, "run": folder})
    else:
        print_table(metrics)
        if folder:
            print(f"report: {folder}/report.html")
    if not metrics["reached"]:
        print("target not reached: see the table and the report", file=sys.stderr)
        raise typer.Exit(3)

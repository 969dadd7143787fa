"""A search whose evaluations cost nothing and misbehave on request, and a worker of it.

    python worker_cases.py FOLDER NAME     serve the ledger in FOLDER as the worker NAME

Files in the folder say what happens at the point with a mark: ``kill-MARK`` (its worker is killed,
once), ``hang-MARK`` (it never ends), ``fail-MARK`` (it raises), ``slow`` (each takes so many
seconds). ``seen.txt`` gets a line for every evaluation.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateur.searching import ALGORITHMS, Discrete, Problem, Real, Space
from secateur.searching._crew import Crew
from secateur.searching._ledger import Ledger
from secateur.searching._running import Found, run_search
from secateur.searching._serving import Tempo, end_with_parent, serve

SPACE = Space((
    Discrete("layers.0", tuple(range(12))),
    Discrete("criterion", ("l1", "l2", None, True), ordered=False),
    Discrete("shape", ((1, 4), (4, 1), (2, 2))),
    Real("rate", 1e-4, 1e-1, log=True),
))  # fmt: skip
TEMPO = Tempo(looks=(0.002, 0.02), beat=0.1, dead=1.5, grace=2.0)
SETTINGS = "settings.json"


def value(point: tuple[Any, ...]) -> float:
    level, criterion, shape, rate = point
    return (level - 7) ** 2 / 10 + (criterion != "l2") + shape[0] / 8 + abs(rate - 0.01)


def mark(point: tuple[Any, ...]) -> str:
    return hashlib.sha256(repr(point).encode()).hexdigest()[:8]


class Misbehaving:
    """``value`` with what the files of a folder ask for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, point: tuple[Any, ...]) -> float:
        with (self.folder / "seen.txt").open("a") as file:
            file.write(f"{os.getpid()} {point!r}\n")
        if (self.folder / "slow").exists():
            time.sleep(float((self.folder / "slow").read_text()))
        name = mark(point)
        if (self.folder / f"fail-{name}").exists():
            raise ValueError("no luck")
        if (self.folder / f"hang-{name}").exists():
            time.sleep(600)
        if (self.folder / f"kill-{name}").exists():
            if (self.folder / f"kill-{name}").read_text() != "always":
                (self.folder / f"kill-{name}").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return value(point)


def ledger(folder: Path, url: str = "") -> Ledger:
    return Ledger(folder, os.environ.get("STUDY", "cases"), SPACE, 1, url)


def command(folder: Path, **settings: Any) -> Any:
    """The command of a worker; settings: url and timeout."""
    (folder / SETTINGS).write_text(json.dumps(settings))
    return lambda name: [sys.executable, __file__, str(folder), name]


def crew_of(folder: Path, crew: Mapping[str, Any], made: Ledger | None = None) -> Crew:
    made = ledger(folder) if made is None else made
    return Crew(made, Misbehaving(folder), tempo=TEMPO, logs=folder, **crew)


def search(
    folder: Path,
    algorithm: str,
    trials: int,
    *,
    seed: int = 0,
    parallel: int = 1,
    url: str = "",
    crew: Mapping[str, Any] | None = None,
    **more: Any,
) -> Found:
    """As a run does it. crew: further arguments of ``Crew``."""
    made = ledger(folder, url)
    with crew_of(folder, crew or {}, made) as engine:
        return run_search(
            Problem(SPACE), ALGORITHMS.get(algorithm)(Problem(SPACE), seed, trials), engine,
            trials=trials, parallel=parallel, known=made.known(), **more,
        )  # fmt: skip


def main() -> None:
    folder, name = Path(sys.argv[1]), sys.argv[2]
    settings = json.loads((folder / SETTINGS).read_text())
    if settings.get("broken"):
        sys.exit("error: this worker cannot begin")
    if name != "joined":
        end_with_parent()
    timeout = settings.get("timeout", float("inf"))
    serve(ledger(folder, settings.get("url", "")), Misbehaving(folder), name,
          timeout=timeout, tempo=TEMPO)  # fmt: skip


if __name__ == "__main__":
    main()

"""A comparison of methods in several processes: each takes every n-th cell."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

from secateur.errors import SecateurError
from secateur.job.contests import Cell, Comparison
from secateur.job.listening import Listener
from secateur.job.method_comparison import dense, finished, written

LOOK = 1.0  # seconds between looks at what is finished


def share(
    comparison: Comparison, source: str, seeds: int | None, workers: int, listener: Listener
) -> dict[str, Any]:
    """Carry out what is missing in several processes; the document of it all.

    Dense models are trained first, here. Errors: SecateurError with what a process said last.
    """
    comparison.output.mkdir(parents=True, exist_ok=True)
    for seed in range(comparison.section.seeds):
        listener.say(f"dense model of seed {seed}")
        dense(comparison, seed)
    wanted = set(comparison.cells())
    stage = f"compare {len(comparison.contestants())} methods"
    listener.begin(stage, len(wanted))
    command = [sys.executable, "-m", "secateur", "compare-methods", source,
               "--output", os.fspath(comparison.output)]  # fmt: skip
    command += ["--seeds", str(seeds)] if seeds is not None else []
    logs = [comparison.output / f"worker-{number}.log" for number in range(workers)]
    crew: list[subprocess.Popen[bytes]] = []
    try:
        for number, log in enumerate(logs):
            with log.open("wb") as file:
                part = ["--part", f"{number}/{workers}"]
                crew.append(subprocess.Popen([*command, *part], stdout=file, stderr=file))
        seen = -1
        while any(process.poll() is None for process in crew):
            time.sleep(LOOK)
            seen = _tick(comparison, wanted, stage, seen, listener)
        _tick(comparison, wanted, stage, seen, listener)
    finally:
        for process in crew:
            process.terminate()
            process.wait()
    for process, log in zip(crew, logs, strict=True):
        if process.returncode:
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise SecateurError(
                f"a process of the comparison ended with {process.returncode}: "
                f"{last[0] if last else 'it said nothing'}; the same command goes on"
            )
    listener.end(stage, f"{len(wanted)} cells")
    return written(comparison)


def _tick(
    comparison: Comparison, wanted: set[Cell], stage: str, seen: int, listener: Listener
) -> int:
    done = [cell for cell in finished(comparison.output) if cell in wanted]
    if len(done) != seen and done:
        last = done[-1]
        listener.tick(stage, len(done), f"{last.name} at {last.ratio:g}, seed {last.seed}")
    return len(done)

"""Times of many layers and files, taken in turn, in several processes.

Each process is a launch: code, memory and caches lie elsewhere in each, which moves times by more
than repeats within one do. In a launch the subjects come in an order of its own, a few are loaded
at a time, and these take turns, so that load on the machine falls on all alike. What is left of
it, the median over launches takes out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from secateur.errors import InputError
from secateur.measure.layer import Layer
from secateur.runtimes import abilities

LAUNCHES = 3
ROUNDS = 3  # turns of a subject in a launch
SLOT = 0.004  # seconds of a turn, one call at least


@dataclass(frozen=True)
class File:
    """An exported model, and a safetensors file that holds its inputs by name."""

    path: str
    inputs: str


Subject = Layer | File
Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Setting:
    """A runtime, with what it is fixed to."""

    runtime: str
    threads: int = 1
    precision: str = "f32"


def time_subjects(
    subjects: Sequence[Subject],
    setting: Setting,
    *,
    launches: int = LAUNCHES,
    rounds: int = ROUNDS,
    slot: float = SLOT,
    seed: int = 0,
    tell: Tell = lambda done, total: None,
) -> list[list[float]]:
    """Seconds per run of each subject, a median for each launch.

    One thread on a CPU is timed by the processor time of the process, in which other programs do
    not count; everything else by the clock. tell: (subjects done, subjects in all launches).
    Errors: InputError with the sentence of the runtime.
    """
    if launches < 1:
        raise InputError(f"launches is {launches}; expected 1 or more")
    found: list[list[float]] = [[] for _ in subjects]
    total = launches * len(subjects)
    for launch in range(launches if subjects else 0):
        document = {
            "runtime": setting.runtime,
            "threads": setting.threads,
            "precision": setting.precision,
            "subjects": [written(subject) for subject in subjects],
            "rounds": rounds,
            "slot": slot,
            "seed": seed + launch,
        }
        for number, (place, seconds) in enumerate(_launched(document), 1):
            found[place].append(seconds)
            tell(launch * len(subjects) + number, total)
    return found


def profiled(layer: Layer, runtime: str) -> bool:
    """Whether a layer's time is that of its own steps, without the call of the runtime."""
    return layer.kind == "convolution" and abilities(runtime).profiles


def clock_of(runtime: str, threads: int) -> Callable[[], float]:
    """Processor time where one thread of this process does all the work, else the clock."""
    if threads == 1 and not abilities(runtime).wall:
        return time.process_time
    return time.perf_counter


def _launched(document: dict[str, Any]) -> Iterator[tuple[int, float]]:
    """(place, seconds) of all subjects in a process of their own. Errors: InputError."""
    command = [sys.executable, "-m", "secateur.measure.timing_worker"]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(document))
            process.stdin.close()
            seen = 0
            for line in process.stdout:
                if line.startswith("{"):
                    raise InputError(json.loads(line)["error"])
                if line.startswith("["):
                    place, seconds = json.loads(line)
                    seen += 1
                    yield place, seconds
            if process.wait() or seen < len(document["subjects"]):
                errors.seek(0)
                last = errors.read().strip().splitlines()[-1:] or ["nothing was said"]
                raise InputError(
                    f"{document['runtime']} ended while it was being timed ({last[0]})"
                )
        finally:
            if process.poll() is None:
                process.kill()


def written(subject: Subject) -> list[Any]:
    """A subject as JSON; ``read`` makes it again."""
    if isinstance(subject, Layer):
        return [subject.kind, list(subject.sizes), list(subject.settings)]
    return ["file", subject.path, subject.inputs]


def read(document: Sequence[Any]) -> Subject:
    """What ``written`` wrote."""
    if document[0] == "file":
        return File(document[1], document[2])
    return Layer(document[0], tuple(document[1]), _tuples(document[2]))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value

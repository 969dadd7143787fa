"""Latency in a run: what a model will cost, and what it does cost beside the dense one.

The prediction chooses widths; what counts is a timing of the exported models in turn. ``tuning.py``
moves the limit that the choice is given until the measured ratio lies just below the target.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from secateur.config import LatencySection, Recipe
from secateur.job import folders
from secateur.job.listening import Listener
from secateur.job.work import Work
from secateur.journal import drop_partial_line
from secateur.measure.latency import time_pair
from secateur.measure.timing import File, Setting, clock_of, time_subjects
from secateur.planning import describe
from secateur.predicting import (
    Latency,
    Tell,
    Whole,
    latency,
    save_inputs,
    silent,
    sized,
    write_timed,
)
from secateur.quantities import Quantity
from secateur.runtimes import abilities, load
from secateur.runtimes._engine import Engine
from secateur.runtimes.eager import runner
from secateur.structure.structure import Structure
from secateur.surgery.applying import apply

WHOLES = "latency.json"
ROUNDS = 10  # turns of a model in a launch
Units = Mapping[str, Sequence[int]]


def prepare(work: Work) -> None:
    """Measure what a target of latency needs to know; whole models once in a run."""
    if work.recipe.target.latency is None:
        return
    listener = work.listener
    listener.begin("latency")
    with work.alone(), staged(listener) as tell:
        work.latency = known_latency(
            work.recipe, work.folder, work.dense, work.structure, work.subject.example_inputs, tell
        )
    assert work.latency is not None
    path = work.folder / WHOLES
    folders.write_json(path, [_written(whole) for whole in work.latency.wholes])
    error = work.latency.error
    work.listener.end("latency", f"predicted within {error:.1%}" if error is not None else "")


@contextmanager
def staged(listener: Listener) -> Iterator[Tell]:
    """Makes a stage with a total of each thing that is measured."""
    stages: list[str] = []

    def tell(what: str, done: int, total: int) -> None:
        if what not in stages:
            if stages:
                listener.end(stages[-1], "done")
            stages.append(what)
            listener.begin(what, total)
        if done:
            listener.tick(what, done, "exported" if "export" in what else "measured")

    yield tell
    if stages:
        listener.end(stages[-1], "done")


def known_latency(
    recipe: Recipe,
    folder: Path,
    dense: nn.Module,
    structure: Structure,
    example_inputs: Any,
    tell: Tell = silent,
) -> Latency | None:
    """Latency of a run with a target of it, from what it kept and what is missing; else None."""
    section = recipe.latency
    if recipe.target.latency is None or section is None:
        return None
    path = folder / WHOLES
    return latency(
        dense,
        structure,
        example_inputs,
        runtime=section.runtime,
        batch=section.batch,
        threads=section.threads,
        precision=section.precision,
        launches=section.launches,
        folder=table_folder(recipe),
        wholes=_read(path) if path.is_file() else None,
        tell=tell,
    )


def table_folder(recipe: Recipe) -> Path | None:
    """Where a recipe keeps the times of layers; None for the user's cache."""
    tables = recipe.latency.tables if recipe.latency else None
    return None if tables is None else (Path(recipe.folder) / tables).resolve()


def _written(whole: Whole) -> dict[str, Any]:
    remove = {name: list(units) for name, units in whole.remove.items()}
    return {"remove": remove, "seconds": list(whole.seconds)}


def _read(path: Path) -> list[Whole]:
    return [
        Whole({k: tuple(v) for k, v in one["remove"].items()}, tuple(one["seconds"]))
        for one in folders.read_json(path)
    ]


def setting_of(section: LatencySection) -> Setting:
    """The runtime of a recipe, its precision filled in."""
    precision = section.precision or abilities(section.runtime).precisions[0]
    return Setting(section.runtime, section.threads, precision)


@dataclass(eq=False)
class Measured:
    """Latency of choices beside the dense model: both exported, timed in turn.

    Pairs in this process and launches of processes of their own differ by some percent, and a
    target is held where both say so: the greater ratio counts. Ratios of an interrupted run are
    read back from ``path``.
    """

    work: Work
    section: LatencySection
    path: Path
    known: dict[str, float] = field(default_factory=dict)
    dense_seconds: float | None = None

    def __post_init__(self) -> None:
        drop_partial_line(self.path)
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                key, ratio, self.dense_seconds = json.loads(line)
                self.known[key] = ratio

    def ratio(self, remove: Units) -> float:
        """Seconds of the model after a removal, divided by those of the dense model."""
        written = json.dumps({name: list(units) for name, units in sorted(remove.items())})
        key = hashlib.sha256(written.encode()).hexdigest()[:16]
        if key not in self.known:
            with self.work.alone():
                self.known[key], self.dense_seconds = self._timed(remove)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, self.known[key], self.dense_seconds]) + "\n")
        return self.known[key]

    def dense(self) -> float:
        """Seconds of the dense model; measured beside itself where nothing was measured yet."""
        if self.dense_seconds is None:
            self.ratio({})
        assert self.dense_seconds is not None
        return self.dense_seconds

    def _timed(self, remove: Units) -> tuple[float, float]:
        """The ratio, and the seconds of the dense model in this process."""
        work = self.work
        plan = describe(work.structure, {k: tuple(v) for k, v in remove.items()}, "")
        smaller = apply(
            work.dense, plan, work.subject.example_inputs, work.recipe.pruning.method,
            structure=work.structure, pure=True,
        )  # fmt: skip
        return self._beside(smaller)

    @cached_property
    def _beside(self) -> Beside:
        inputs = sized(self.work.subject.example_inputs, self.section.batch)
        return Beside(self.work.dense, inputs, self.section)


@dataclass(eq=False)
class Beside:
    """Latency of models beside a dense one, of which one file is written for all.

    Call it with a model for the ratio, by pairs in this process or by launches of others, whichever
    is the greater, and the seconds of the dense model.
    """

    dense: nn.Module
    inputs: Any
    section: LatencySection

    def __call__(self, smaller: nn.Module) -> tuple[float, float]:
        section = self.section
        launched = 0.0
        if section.runtime == "eager":  # there is no file that another process could load
            runs = [running(model, self.inputs, section) for model in (self.dense, smaller)]
        else:
            runs, launched = self._runs(smaller)
        clock = clock_of(section.runtime, section.threads)
        pair = time_pair(runs[0], runs[1], seconds=section.seconds, clock=clock)
        return max(launched, 1 / pair.ratio.median), pair.a.median

    def _runs(self, smaller: nn.Module) -> tuple[list[Callable[[], Any]], float]:
        """Of both models in this process, and the ratio that launches of others saw."""
        section, setting = self.section, setting_of(self.section)
        with tempfile.TemporaryDirectory() as folder:
            path = write_timed(smaller, self.inputs, section.runtime, Path(folder) / "smaller")
            dense, feed = self._files
            files = [File(str(dense), str(feed)), File(str(path), str(feed))]
            a, b = time_subjects(files, setting, launches=section.launches, rounds=ROUNDS)
            engines = [
                load(section.runtime, file, section.threads, setting.precision)
                for file in (dense, path)
            ]
        ratio = statistics.median(y / x for x, y in zip(a, b, strict=True))
        return [running_file(engine, self.inputs) for engine in engines], ratio

    @cached_property
    def _files(self) -> tuple[Path, Path]:
        """Of the dense model and of the inputs."""
        place = Path(self._place.name)
        return (
            write_timed(self.dense, self.inputs, self.section.runtime, place / "dense"),
            save_inputs(self.inputs, place / "inputs.safetensors"),
        )

    @cached_property
    def _place(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory()


def running(model: nn.Module, inputs: Any, section: LatencySection) -> Callable[[], Any]:
    """One run of a model on the runtime of a recipe; PyTorch itself takes the model as it is."""
    if section.runtime == "eager":
        run = runner(model, section.threads)
        return lambda: run(inputs)
    with tempfile.TemporaryDirectory() as place:
        file = write_timed(model, inputs, section.runtime, Path(place) / "model")
        engine = load(section.runtime, file, section.threads, section.precision)
    return running_file(engine, inputs)


def running_file(engine: Engine, inputs: Any) -> Callable[[], Any]:
    """One run of what was loaded."""
    feed = engine.feed(inputs)
    return lambda: engine.run(feed)


def share_of(target: Quantity, measured: Measured) -> float:
    """A target of latency as a share of the dense model's; 1 and more where that meets it."""
    return target.value if target.unit == "fraction" else target.value / measured.dense()

"""Latency in a run: what a model will cost, and what it does cost beside the dense one.

The prediction chooses widths; what counts is a timing of the exported models in turn. So the
limit that the choice is given is moved until the measured ratio lies just below the target.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from secateur.config import LatencySection, Recipe
from secateur.errors import BudgetError
from secateur.job import folders
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
AIM, CLOSE, UNDER = 0.962, 0.945, 0.975  # of the target: where to aim, and what is near enough
TRIES, NEAREST = 10, 3
STEPS = (0.0, *(sign * percent / 100 for percent in (1, 2, 3, 4, 6, 8) for sign in (1, -1)))
ROUNDS = 10  # turns of a model in a launch
Units = Mapping[str, Sequence[int]]


def prepare(work: Work) -> None:
    """Measure what a target of latency needs to know; whole models once in a run."""
    if work.recipe.target.latency is None:
        return
    work.listener.begin("latency")
    with work.alone():
        work.latency = known_latency(
            work.recipe, work.folder, work.dense, work.structure, work.subject.example_inputs,
            lambda what, done, total: work.listener.tick("latency", 0, f"{what} {done}/{total}"),
        )  # fmt: skip
    assert work.latency is not None
    path = work.folder / WHOLES
    folders.write_json(path, [_written(whole) for whole in work.latency.wholes])
    error = work.latency.error
    work.listener.end("latency", f"predicted within {error:.1%}" if error is not None else "")


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

    Pairs in this process and launches of processes of their own differ by up to 3 %, and a target
    is held where both say so: the greater ratio counts. Ratios of an interrupted run are read back
    from ``path``.
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
        inputs = sized(work.subject.example_inputs, self.section.batch)
        return timed_beside(work.dense, smaller, inputs, self.section)


def timed_beside(
    dense: nn.Module, smaller: nn.Module, inputs: Any, section: LatencySection
) -> tuple[float, float]:
    """Latency of a model beside that of the dense one, by pairs in this process and by launches,
    the greater of the two; and the seconds of the dense model."""
    clock = clock_of(section.runtime, section.threads)
    if section.runtime == "eager":  # there is no file that another process could load
        runs = [running(model, inputs, section) for model in (dense, smaller)]
        pair = time_pair(runs[0], runs[1], seconds=section.seconds, clock=clock)
        return 1 / pair.ratio.median, pair.a.median
    setting = setting_of(section)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        paths = [
            write_timed(model, inputs, section.runtime, place / name)
            for name, model in (("dense", dense), ("smaller", smaller))
        ]
        feed = str(save_inputs(inputs, place / "inputs.safetensors"))
        files = [File(str(path), feed) for path in paths]
        a, b = time_subjects(files, setting, launches=section.launches, rounds=ROUNDS)
        engines = [
            load(section.runtime, path, section.threads, setting.precision) for path in paths
        ]
    runs = [running_file(engine, inputs) for engine in engines]
    pair = time_pair(runs[0], runs[1], seconds=section.seconds, clock=clock)
    launched = statistics.median(y / x for x, y in zip(a, b, strict=True))
    return max(launched, 1 / pair.ratio.median), pair.a.median


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
    """A target of latency as a share of the dense model's."""
    if target.unit == "fraction":
        return target.value
    return min(1.0, target.value / measured.dense())


def tuned(
    choose: Callable[[float], Units],
    ratio: Callable[[Units], float],
    share: float,
    start: float | None = None,
    tell: Callable[[int, float, float], None] = lambda number, limit, found: None,
) -> tuple[dict[str, tuple[int, ...]], float]:
    """The choice whose measured ratio lies just below a share, and the limit that gave it.

    choose: limit, as a share of the predicted latency -> what leaves. Choices miss what was
    predicted by some percent, each by its own, so the next limit goes by what those nearest to the
    aim missed, and where it gives a choice that was measured, a limit beside it is taken. The
    largest ratio that holds the target is taken of ``TRIES``, or of twice as many where none did.
    Errors: BudgetError where no choice holds the target.
    """
    aim = AIM * share
    limit = min(1.0, start if start is not None else aim)
    tried: list[_Try] = []
    failure: BudgetError | None = None
    while len(tried) < (TRIES if any(one.ratio <= share for one in tried) else 2 * TRIES):
        found, failure = _unseen(choose, limit, tried)
        if found is None:
            break
        chosen, limit = found
        tried.append(_Try(limit, ratio(chosen), chosen))
        tell(len(tried), limit, tried[-1].ratio)
        if CLOSE * share <= tried[-1].ratio <= UNDER * share:
            break
        near = sorted(tried, key=lambda one: abs(math.log(one.ratio / aim)))[:NEAREST]
        missed = statistics.median(one.ratio / one.limit for one in near)
        limit = min(1.0, limit * min(1.5, max(0.6, aim / missed / limit)))
    holding = [one for one in tried if one.ratio <= share]
    if not holding:
        why = [str(failure)] if failure else []
        if tried:
            least = min(one.ratio for one in tried)
            why.append(f"the least that was measured is {least:.3f}x")
        raise BudgetError(
            f"latency of {share:.3g}x cannot be reached: {'; '.join(why)}"
        ) from failure
    roomy = [one for one in holding if one.ratio <= UNDER * share]
    taken = max(roomy, key=lambda one: one.ratio) if roomy else min(holding, key=lambda o: o.ratio)
    return taken.remove, taken.limit


@dataclass(frozen=True)
class _Try:
    """A choice that was measured, and the limit that gave it."""

    limit: float
    ratio: float
    remove: dict[str, tuple[int, ...]]


def _unseen(
    choose: Callable[[float], Units], limit: float, tried: Sequence[_Try]
) -> tuple[tuple[dict[str, tuple[int, ...]], float] | None, BudgetError | None]:
    """The first choice of the limits around one that was not measured yet, with its limit; and why
    limits gave none."""
    seen, failure = [one.remove for one in tried], None
    for step in STEPS:
        beside = min(1.0, limit * (1 + step))
        try:
            chosen = {name: tuple(units) for name, units in choose(beside).items()}
        except BudgetError as error:
            failure = error
            continue
        if chosen not in seen:
            return (chosen, beside), failure
    return None, failure

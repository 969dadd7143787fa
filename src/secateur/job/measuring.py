"""Size, work, memory and speed of the two models, measured the same way."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from secateur.config import LatencySection
from secateur.exporters import suffix_of
from secateur.job.timing import ROUNDS, running, running_file, setting_of
from secateur.measure.latency import (
    SESSIONS,
    PairedTiming,
    Spread,
    Timing,
    over_sessions,
    time_pair,
)
from secateur.measure.memory import peak_activation_bytes
from secateur.measure.operations import count_flops
from secateur.measure.sizes import count_bytes, count_nonzero, count_params
from secateur.measure.timing import File, clock_of, time_subjects
from secateur.predicting import save_inputs, sized, write_timed
from secateur.runtimes import abilities, load
from secateur.structure.inputs import ExampleInputs, as_arguments, batch_size
from secateur.surgery.tensors import unique_tensors
from secateur.training.losses import Loss
from secateur.training.stepping import time_step

LONGER = 3  # times the seconds of the recipe, where a first timing could not tell
CLEAR = 1.05  # times as fast: more than loading a file anew ever made of nothing
SEED = 4  # from here on launches load the pruned and the dense file first by turns


def measured(
    model: nn.Module, example_inputs: ExampleInputs, batch: Any, loss: Loss | None = None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Figures of one model, and the operations whose work could not be counted.

    batch: (inputs, targets) to time a training step with, or None. loss: of that step.
    """
    report = count_flops(model, example_inputs)
    figures = {
        "params": count_params(model),
        "nonzero": count_nonzero(model),
        "flops": report.flops,
        "bytes": count_bytes(model),
        "peak_memory": peak_activation_bytes(model, sized(example_inputs, 1)),
        "train_step": None if batch is None else time_step(model, batch, loss=loss),
        "train_step_samples": None if batch is None else batch_size(as_arguments(batch[0])),
    }
    return figures, tuple(report.uncounted)


def paired_latency(
    section: LatencySection | None,
    dense: nn.Module,
    pruned: nn.Module,
    example_inputs: ExampleInputs,
    exports: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """Both models timed in turn on the runtime of the recipe.

    The exports of the run are timed where the runtime can load them, else files made for it. The
    speedup is that of several sessions. ``same`` in it: whether both have tensors of the same
    shapes, so that there is nothing to be gained.
    """
    if section is None:
        return {"before": None, "after": None, "speedup": None}
    inputs = sized(example_inputs, section.batch)
    same = _shapes(dense) == _shapes(pruned)
    if section.runtime == "eager":  # there is no file that another process could load
        timing = _in_turn([running(model, inputs, section) for model in (dense, pruned)], section)
        ratio = timing.ratio
    else:
        with tempfile.TemporaryDirectory() as place:
            files = _exported(section.runtime, exports) or [
                write_timed(model, inputs, section.runtime, Path(place) / side)
                for side, model in (("dense", dense), ("pruned", pruned))
            ]
            feed = save_inputs(inputs, Path(place) / "inputs.safetensors")
            precision = setting_of(section).precision
            engines = [load(section.runtime, f, section.threads, precision) for f in files]
            timing = _in_turn([running_file(one, inputs) for one in engines], section)
            subjects = [File(str(file), str(feed)) for file in files]
            ratio = _over_sessions(timing.ratio, subjects, section, judged=not same)
    return {
        "before": _timing(timing.a, section),
        "after": _timing(timing.b, section),
        "speedup": {
            "median": ratio.median,
            "low": ratio.low,
            "high": ratio.high,
            "same": same,
        },
    }


def _in_turn(runs: list[Callable[[], Any]], section: LatencySection) -> PairedTiming:
    """One session of each, timed again for longer where it cannot tell and is the only one."""
    clock = clock_of(section.runtime, section.threads)
    timing = time_pair(runs[0], runs[1], seconds=section.seconds, clock=clock)
    if section.runtime == "eager" and timing.ratio.low <= 1 <= timing.ratio.high:
        seconds = LONGER * section.seconds
        timing = time_pair(runs[0], runs[1], seconds=seconds, rounds=60, clock=clock)
    return timing


def _over_sessions(
    first: Spread, files: list[File], section: LatencySection, judged: bool
) -> Spread:
    """The speedup in the launches of the recipe too, and, where it is judged and one of them lies
    near 1, in as many as bound a median."""
    found: list[float] = []

    def launch(count: int) -> None:
        dense, pruned = time_subjects(
            files, setting_of(section), launches=count, rounds=ROUNDS, seed=SEED + len(found)
        )
        found.extend(a / b for a, b in zip(dense, pruned, strict=True))

    launch(section.launches)
    all_of = [first.median, *found]
    clear = min(all_of) > CLEAR or max(all_of) < 1 / CLEAR
    if judged and not clear and len(all_of) < SESSIONS:
        launch(SESSIONS - len(all_of))
    return over_sessions(first, found)


def _shapes(model: nn.Module) -> list[tuple[int, ...]]:
    """Of all tensors, in no order: a graph that was rewritten may name them otherwise."""
    return sorted(tuple(tensor.shape) for tensor in unique_tensors(model).values())


def _exported(runtime: str, exports: dict[str, list[dict[str, Any]]]) -> list[Path] | None:
    for suffix in () if runtime == "eager" else abilities(runtime).suffixes:
        found = [
            Path(entry["file"])
            for side in ("dense", "pruned")
            for entry in exports[side]
            if suffix_of(entry["name"]) == suffix
        ]
        if len(found) == 2:
            return found
    return None


def _timing(timing: Timing, section: LatencySection) -> dict[str, Any]:
    return {
        "runtime": section.runtime,
        "precision": setting_of(section).precision,
        "median": timing.median,
        "low": timing.low,
        "high": timing.high,
        "batch": section.batch,
        "threads": section.threads,
    }

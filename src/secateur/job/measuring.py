"""Size, work, memory and speed of the two models, measured the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from secateur.config import LatencySection
from secateur.exporters import suffix_of
from secateur.job.timing import running, running_file, setting_of
from secateur.measure.latency import PairedTiming, Timing, time_pair
from secateur.measure.memory import peak_activation_bytes
from secateur.measure.operations import count_flops
from secateur.measure.sizes import count_bytes, count_nonzero, count_params
from secateur.measure.timing import clock_of
from secateur.predicting import sized
from secateur.runtimes import abilities, load
from secateur.structure.inputs import ExampleInputs, as_arguments, batch_size
from secateur.training.losses import Loss
from secateur.training.stepping import time_step

LONGER = 3  # times the seconds of the recipe, where a first timing could not tell


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

    The exports of the run are timed where the runtime can load them, else files made for it.
    """
    if section is None:
        return {"before": None, "after": None, "speedup": None}
    inputs = sized(example_inputs, section.batch)
    files = _exported(section.runtime, exports)
    if files is None:
        runs = [running(model, inputs, section) for model in (dense, pruned)]
    else:
        runs = [
            running_file(load(section.runtime, f, section.threads, section.precision), inputs)
            for f in files
        ]
    clock = clock_of(section.runtime, section.threads)
    timing = time_pair(runs[0], runs[1], seconds=section.seconds, clock=clock)
    if timing.ratio.low <= 1 <= timing.ratio.high:  # noise may hide it: look longer before judging
        timing = time_pair(
            runs[0], runs[1], seconds=LONGER * section.seconds, rounds=60, clock=clock
        )
    return {
        "before": _timing(timing.a, section),
        "after": _timing(timing.b, section),
        "speedup": _speedup(timing),
    }


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


def _speedup(timing: PairedTiming) -> dict[str, float]:
    return {"median": timing.ratio.median, "low": timing.ratio.low, "high": timing.ratio.high}

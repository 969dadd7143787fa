"""Size, work, memory and speed of the two models, measured the same way."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from secateur.config import LatencySection
from secateur.measure.latency import PairedTiming, Timing, time_pair
from secateur.measure.memory import peak_activation_bytes
from secateur.measure.operations import count_flops
from secateur.measure.sizes import count_bytes, count_params
from secateur.runtimes.eager import runner
from secateur.runtimes.onnxruntime import session
from secateur.structure.inputs import ExampleInputs, as_arguments, map_tensors
from secateur.training.stepping import time_step


def measured(
    model: nn.Module, example_inputs: ExampleInputs, batch: Any
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Figures of one model, and the operations whose work could not be counted.

    batch: (inputs, targets) to time a training step with, or None.
    """
    report = count_flops(model, example_inputs)
    figures = {
        "params": count_params(model),
        "flops": report.flops,
        "bytes": count_bytes(model),
        "peak_memory": peak_activation_bytes(model, one_sample(example_inputs)),
        "train_step": None if batch is None else time_step(model, batch),
    }
    return figures, tuple(report.uncounted)


def one_sample(example_inputs: ExampleInputs, count: int = 1) -> Any:
    """Example inputs cut or repeated to a batch of ``count``, as (args, kwargs)."""

    def sized(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() == 0:
            return tensor
        times = -(-count // tensor.shape[0])
        return tensor.repeat(times, *[1] * (tensor.dim() - 1))[:count]

    return map_tensors(sized, as_arguments(example_inputs))


def paired_latency(
    section: LatencySection | None,
    dense: nn.Module,
    pruned: nn.Module,
    example_inputs: ExampleInputs,
    exports: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """Both models timed in turn on the runtime of the recipe."""
    if section is None:
        return {"before": None, "after": None, "speedup": None}
    inputs = one_sample(example_inputs, section.batch)
    if section.runtime == "onnxruntime":
        files = [
            entry["file"]
            for side in ("dense", "pruned")
            for entry in exports[side]
            if entry["name"] == "onnx"
        ]
        if len(files) < 2:
            return {"before": None, "after": None, "speedup": None}
        runs = [session(file, section.threads) for file in files]
        feeds = [run.feed(inputs) for run in runs]
        timing = time_pair(
            lambda: runs[0].run(feeds[0]), lambda: runs[1].run(feeds[1]), seconds=section.seconds
        )
    else:
        first = runner(dense, section.threads)
        second = runner(pruned, section.threads)
        timing = time_pair(lambda: first(inputs), lambda: second(inputs), seconds=section.seconds)
    return {
        "before": _timing(timing.a, section),
        "after": _timing(timing.b, section),
        "speedup": _speedup(timing),
    }


def _timing(timing: Timing, section: LatencySection) -> dict[str, Any]:
    return {
        "runtime": section.runtime,
        "median": timing.median,
        "low": timing.low,
        "high": timing.high,
        "batch": section.batch,
        "threads": section.threads,
    }


def _speedup(timing: PairedTiming) -> dict[str, float]:
    return {"median": timing.ratio.median, "low": timing.ratio.low, "high": timing.ratio.high}

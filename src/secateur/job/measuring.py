"""Size, work, memory and speed of the two models, measured the same way."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.config import LatencySection
from secateur.measure.latency import PairedTiming, Timing, time_pair
from secateur.measure.memory import peak_activation_bytes
from secateur.measure.operations import count_flops
from secateur.measure.sizes import count_params
from secateur.structure.inputs import ExampleInputs, as_arguments, map_tensors
from secateur.surgery.storing import write_tensors
from secateur.surgery.tensors import unique_tensors
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
        "bytes": bytes_on_disk(model),
        "peak_memory": peak_activation_bytes(model, one_sample(example_inputs)),
        "train_step": None if batch is None else time_step(model, batch),
    }
    return figures, tuple(report.uncounted)


def bytes_on_disk(model: nn.Module) -> int:
    """Size of the model's tensors as safetensors."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        write_tensors(path, {n: t.cpu() for n, t in unique_tensors(model).items()})
        return path.stat().st_size


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
        from secateur.runtimes.onnxruntime import session

        files = [next((e["file"] for e in exports[side] if e["name"] == "onnx"), None)
                 for side in ("dense", "pruned")]  # fmt: skip
        if None in files:
            return {"before": None, "after": None, "speedup": None}
        runs = [session(file, section.threads) for file in files]
        flat = tuple(t for t in torch.utils._pytree.tree_leaves(inputs) if isinstance(t, torch.Tensor))
        timing = time_pair(lambda: runs[0](flat), lambda: runs[1](flat), seconds=section.seconds)
    else:
        from secateur.runtimes.eager import runner

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

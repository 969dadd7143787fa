"""What to deploy on this machine: dense or pruned, in float32, bfloat16 or 8 bits, and where.

All candidates are exported, answer the same validation samples through their own runtime, and
are timed in turn with the dense model in ONNX Runtime.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils.data import Subset

from secateur.config import Recipe
from secateur.errors import InputError, SecateurError
from secateur.exporters import suffix_of
from secateur.job import folders
from secateur.job.evaluating import opened_run, with_dense_weights
from secateur.job.exporting import exported
from secateur.job.listening import Listener
from secateur.job.timing import running_file
from secateur.measure.latency import is_gain, time_pair
from secateur.measure.timing import clock_of
from secateur.metrics import evaluate, told_worsening, worsening
from secateur.predicting import sized
from secateur.protocols import Subject
from secateur.quantities import parse_quantity
from secateur.reports.html import write_html
from secateur.runtimes import load
from secateur.runtimes._engine import Engine
from secateur.structure.caches import known_caches
from secateur.structure.inputs import as_arguments
from secateur.surgery.storing import load as load_model
from secateur.training.loading import batches, forward

SAMPLES = 2000  # of the validation split
DROP = "1pt"  # that may go where the recipe does not say
# (runtime, precision as it is shown, precision of the runtime, format of the file)
WAYS = (
    ("onnxruntime", "f32", "f32", "onnx"),
    ("onnxruntime", "int8", "f32", "onnx-int8"),
    ("openvino", "f32", "f32", "onnx"),
    ("openvino", "bf16", "bf16", "onnx"),
    ("openvino", "int8", "f32", "onnx-int8"),
)


@dataclass(frozen=True)
class Candidate:
    """One way to deploy, measured.

    speedup: (median, low, high) beside the dense model in ONNX Runtime, the interval as wide as
    loading a file anew makes it; seconds: of one run.
    value: the metric on validation samples, None without data. error: why it could not be tried.
    """

    model: str
    runtime: str
    precision: str
    bytes: int = 0
    seconds: float = 0.0
    speedup: tuple[float, float, float] = (0.0, 0.0, 0.0)
    value: float | None = None
    error: str = ""


def advise(folder: Path, listener: Listener, samples: int = SAMPLES) -> dict[str, Any]:
    """The table of all ways to deploy a finished run, and which to take.

    It stands in advice.json, metrics.json and the report. The fastest is taken of those whose
    metric on validation samples is within the allowed drop (``max_drop`` of the recipe, or one
    point) of the dense model's in float32; without data of those in float32. Where none of them is
    measurably faster, it is the dense model in ONNX Runtime. Of a run that kept its dense model,
    the pruned one is that in ``slower``. Errors: InputError for a run that is not finished.
    """
    recipe, subject, pruned = opened_run(folder, False)
    before = folders.read_json(folder / folders.METRICS)
    if before.get("kept") == "dense":  # model/ is dense, and what was pruned lies beside it
        pruned = load_model(folder / "slower", subject.build).eval()
    dense = with_dense_weights(subject.build(), folder)
    document = ways_to_deploy(recipe, subject, dense, pruned, listener, samples)
    folders.write_json(folder / "advice.json", document)
    metrics = {**before, "deployment": document}
    write_html(metrics, folder / "report.html")
    folders.write_json(folder / folders.METRICS, metrics)
    return document


def ways_to_deploy(
    recipe: Recipe,
    subject: Subject,
    dense: nn.Module,
    pruned: nn.Module,
    listener: Listener,
    samples: int = SAMPLES,
    most: float | None = None,
) -> dict[str, Any]:
    """What ``advise`` returns, of models that are at hand. most: seconds for timing each way."""
    section = recipe.latency
    batch, threads = (section.batch, section.threads) if section else (1, 1)
    seconds = min(section.seconds if section else 4.0, most or float("inf"))
    inputs = sized(subject.example_inputs, batch)
    rows: list[Candidate] = []
    listener.begin("advise", 2 * len(WAYS))
    with tempfile.TemporaryDirectory() as place:
        files: dict[tuple[str, str], dict[str, Any]] = {}

        def file(side: str, kind: str) -> Path:
            if (side, kind) not in files:
                model = dense if side == "dense" else pruned
                target = Path(place) / f"{side}{suffix_of(kind)}"
                files[side, kind] = exported(kind, model, target, recipe, subject)
            return Path(place) / files[side, kind]["path"]

        reference = running_file(load("onnxruntime", file("dense", "onnx"), threads), inputs)
        for side, model in (("dense", dense), ("pruned", pruned)):
            for runtime, shown, precision, kind in WAYS:
                listener.tick("advise", len(rows), f"{side} in {runtime}, {shown}")
                try:
                    engine = load(runtime, file(side, kind), threads, precision)
                    timing = time_pair(
                        reference, running_file(engine, inputs), seconds=seconds,
                        clock=clock_of(runtime, threads),
                    )  # fmt: skip
                    value = _value(recipe, subject, model, engine, samples)
                except SecateurError as error:  # one way that is closed does not close the others
                    rows.append(Candidate(side, runtime, shown, error=str(error)))
                    continue
                ratio = timing.ratio
                rows.append(
                    Candidate(
                        side, runtime, shown, files[side, kind]["bytes"], timing.b.median,
                        (ratio.median, ratio.low, ratio.high), value,
                    )
                )  # fmt: skip
    listener.end("advise", f"{len(rows)} ways measured")
    return _document(_widened(rows), recipe)


def _reference(rows: list[Candidate]) -> Candidate:
    """The dense model in ONNX Runtime, beside which all were timed."""
    return next(r for r in rows if (r.model, r.runtime, r.precision) == ("dense", *WAYS[0][:2]))


def _widened(rows: list[Candidate]) -> list[Candidate]:
    """With intervals that hold what loading a file makes of it: the reference was loaded a second
    time as one of the candidates, and is as far from 1 as that takes it."""
    beside_itself = _reference(rows).speedup[0]
    if not beside_itself:
        return rows
    factor = max(beside_itself, 1 / beside_itself)
    return [
        replace(row, speedup=(row.speedup[0], row.speedup[1] / factor, row.speedup[2] * factor))
        for row in rows
    ]


def _document(rows: list[Candidate], recipe: Any) -> dict[str, Any]:
    dense = _reference(rows)
    allowed = parse_quantity(recipe.max_drop or DROP, "drop").value

    def drop(row: Candidate) -> float | None:
        if row.value is None or dense.value is None:
            return None
        return worsening(recipe.metric, dense.value, row.value)

    def fits(row: Candidate) -> bool:
        lost = drop(row)
        if row.error:
            return False
        return row.precision == "f32" if lost is None else lost <= allowed + 1e-12

    fitting = [row for row in rows if fits(row)]
    if not fitting:
        raise InputError(f"no way to deploy could be measured; the dense model: {dense.error}")
    best = max(fitting, key=lambda row: row.speedup[0])
    if dense in fitting and not is_gain(*best.speedup[:2]):
        best = dense
    return {
        "metric": recipe.metric,
        "allowed_drop": allowed,
        "ways": [
            {**vars(row), "speedup": list(row.speedup), "drop": drop(row), "fits": fits(row)}
            for row in rows
        ],
        "advice": {"model": best.model, "runtime": best.runtime, "precision": best.precision},
        "speedup": list(best.speedup),
        "sentence": _sentence(best, drop(best), recipe.metric, best is dense),
    }


def _sentence(best: Candidate, lost: float | None, metric: str, unchanged: bool) -> str:
    how = f"the {best.model} model in {best.runtime} with {best.precision}"
    if unchanged:
        return f"Take {how}: nothing that loses little enough is measurably faster."
    cost = ""
    if lost is not None:
        word = "worse" if lost > 0 else "better"
        told = f"{told_worsening(metric, abs(lost))} {word}" if lost else "no worse"
        cost = f"; {metric} on validation is {told}"
    return (
        f"Take {how}: {best.speedup[0]:.2f} times the speed of the dense model in ONNX Runtime "
        f"({best.speedup[1]:.2f} to {best.speedup[2]:.2f}){cost}."
    )


def _value(
    recipe: Any, subject: Any, model: nn.Module, engine: Engine, samples: int
) -> float | None:
    if subject.data is None or recipe.data is None:
        return None
    part = subject.data.val
    part = Subset(part, range(min(samples, len(part))))
    size, least = recipe.data.batch_size, 1
    if engine.shapes and engine.shapes[0] and engine.shapes[0][0] is not None:
        size = engine.shapes[0][0]
        least = size  # a file of one batch size takes no smaller last batch
    answers = Answers(engine, _rebuilt(model, subject.example_inputs))
    found = evaluate(answers, batches(part, size, least=least), recipe.metric, subject.data.loss)
    return float(found[recipe.metric])


class Answers(nn.Module):
    """What a runtime answers, as a model of PyTorch would: for metrics, that call models."""

    def __init__(self, engine: Engine, rebuild: Callable[[list[torch.Tensor]], Any]) -> None:
        super().__init__()
        self.engine, self.rebuild = engine, rebuild

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = self.engine((args, kwargs))
        return self.rebuild([torch.from_numpy(np.ascontiguousarray(x)) for x in found])


def _rebuilt(model: nn.Module, example_inputs: Any) -> Callable[[list[torch.Tensor]], Any]:
    """Flat outputs in the form in which the model itself gives them."""
    args, kwargs = as_arguments(example_inputs)
    with torch.no_grad(), known_caches():
        leaves, spec = pytree.tree_flatten(forward(model, (args, kwargs)))
    if all(isinstance(leaf, torch.Tensor) for leaf in leaves):
        return lambda found: pytree.tree_unflatten(found, spec)
    return lambda found: found[0]


def check_folder(folder: Path) -> None:
    """Errors: InputError for what is no finished run, before torch is loaded."""
    folders.open_folder(folder)
    if not (folder / folders.METRICS).is_file():
        raise InputError(f"{folder} is not finished; go on with: secateur resume {folder}")

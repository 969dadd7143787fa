"""``latency``: what a model will cost on a runtime of this machine, at any widths.

costs = secateur.latency(model, structure, example_inputs, runtime="onnxruntime")
plan = secateur.plan(model, structure, budget={"latency": 0.5}, latency=costs)
"""

from __future__ import annotations

import math
import random
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn
from torch.utils import _pytree as pytree

from secateur.errors import InputError
from secateur.exporters import EXPORTERS, suffix_of
from secateur.measure.layer import Layer
from secateur.measure.layers import layers_of
from secateur.measure.prediction import Predictor, TimedStructure, fitted, predictor
from secateur.measure.table import Tell, measured_table
from secateur.measure.timing import LAUNCHES, File, Setting, time_subjects
from secateur.planning import describe
from secateur.runtimes import abilities, check_threads, ready
from secateur.structure.groups import Group
from secateur.structure.inputs import ExampleInputs, as_arguments, map_tensors
from secateur.structure.structure import Structure
from secateur.surgery.applying import apply

WHOLE = (1.0, 0.75, 0.5, 0.25)  # shares of every width: whole models that are measured
DRAWN = 2  # more, of random widths
LEAST = 0.1  # of a width: the table reaches down to it

Units = Mapping[str, tuple[int, ...]]


def silent(what: str, done: int, total: int) -> None:
    """Tells nothing."""


@dataclass(frozen=True, eq=False)
class Whole:
    """A whole model that was measured: its widths, the shortest seconds of each launch."""

    remove: Units
    seconds: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Latency:
    """Predicted latency of a model at any widths, on one runtime of this machine.

    batch: of the runs that are predicted. wholes: what the prediction was fitted to.
    """

    setting: Setting
    batch: int
    predictor: Predictor
    wholes: tuple[Whole, ...]

    def seconds(self, remove: Units) -> float:
        """Of one run after a removal."""
        return self.predictor.seconds(remove)

    def timed(self, structure: Structure) -> TimedStructure:
        """The structure with seconds among its costs."""
        return TimedStructure(structure, self.predictor)

    @property
    def error(self) -> float | None:
        """The mean relative distance of a whole model from what the others predict for it."""
        return self.predictor.error

    def grains(self, structure: Structure) -> dict[str, int]:
        """For each group, of how many units its width should be a multiple on this runtime."""
        return {group.name: grain(group, self.predictor) for group in structure.groups}


def latency(
    model: nn.Module,
    structure: Structure,
    example_inputs: ExampleInputs,
    *,
    runtime: str = "onnxruntime",
    batch: int = 1,
    threads: int = 1,
    precision: str = "",
    launches: int = LAUNCHES,
    folder: Path | None = None,
    wholes: Sequence[Whole] | None = None,
    tell: Tell = silent,
) -> Latency:
    """Measure the layers of a model on a runtime, and a few whole models to fit them to.

    structure: of the whole model, from ``trace``. Layers that were measured before on this
    machine are read back. folder: where they are kept; the user's cache by default. wholes: whole
    models that were measured before, instead of measuring any.
    Errors: InputError for a runtime that is unknown or not installed, more threads than cores, or
    a structure of a part; those of the export that the runtime needs.
    """
    if structure.part:
        raise InputError("latency is measured on whole models, and this structure is of a part")
    ready(runtime, precision)
    check_threads(threads)
    precision = precision or abilities(runtime).precisions[0]
    setting = Setting(runtime, threads, precision)
    found = layers_of(structure, batch)
    table = measured_table(
        _pairs(structure, found.at), setting, folder=folder, launches=launches, tell=tell
    )
    first = predictor(found, table)
    if wholes is None:
        removals = _whole_models(structure, first)
        times = time_models(
            model, structure, example_inputs, removals, setting, batch, launches=launches, tell=tell
        )
        wholes = [Whole(r, tuple(t)) for r, t in zip(removals, times, strict=True)]
    return Latency(setting, batch, fit_to(first, wholes), tuple(wholes))


def fit_to(first: Predictor, wholes: Sequence[Whole]) -> Predictor:
    """A predictor with factors from whole models, the first of them dense.

    A launch can be slow as a whole, so ratios to the dense model are taken in each.
    """
    dense = wholes[0].seconds
    seconds = [
        statistics.median(dense)
        * statistics.median(a / b for a, b in zip(w.seconds, dense, strict=True))
        for w in wholes
    ]
    return fitted(first, [whole.remove for whole in wholes], seconds)


def _pairs(structure: Structure, at: Callable[[Units], Any]) -> list[tuple[Layer, Layer]]:
    """Every layer at full width, and at the least widths that groups can have one by one."""
    full = at({})[0]
    low = [layer.sizes for layer in full]
    smallest = {
        g.name: tuple(range(g.size - max(1, math.ceil(LEAST * g.size)))) for g in structure.groups
    }
    least = at({name: units for name, units in smallest.items() if units})[0]
    low = [tuple(map(min, a, b.sizes)) for a, b in zip(low, least, strict=True)]
    return [
        (one, Layer(one.kind, tuple(max(1, s) for s in sizes), one.settings))
        for one, sizes in zip(full, low, strict=True)
    ]


def _whole_models(structure: Structure, first: Predictor) -> list[Units]:
    """The dense model, the same share of every width, and random widths; all on the grid."""
    drawn = random.Random(0)
    shares: list[Callable[[], float]] = [lambda share=share: share for share in WHOLE]
    shares += [lambda: drawn.uniform(0.25, 1.0)] * DRAWN
    found: list[Units] = []
    for share in shares:
        remove = {}
        for group in structure.groups:
            width = _on_grid(share() * group.size, group, grain(group, first))
            if width < group.size:
                remove[group.name] = tuple(range(width, group.size))
        if remove not in found:
            found.append(remove)
    return found


def _on_grid(width: float, group: Group, grain: int) -> int:
    return min(group.size, max(grain, round(width / grain) * grain, 1))


def grain(group: Group, predictor: Predictor) -> int:
    """Of how many units a width should be a multiple: of the largest step of the kinds of layers
    that the model has, but so that the group keeps at least four levels."""
    kinds = {layer.kind for layer in predictor.dense}
    rules = predictor.table.rules.items()
    step = max((rule.step for (kind, _), rule in rules if kind in kinds), default=1)
    per_unit = {member.index.shape[1] for member in group.members if member.role == "out"}
    units = math.lcm(*(step // math.gcd(step, k) for k in per_unit or {1}))
    while units > 1 and group.size < 4 * units:
        units //= 2
    return max(1, units)


def time_models(
    model: nn.Module,
    structure: Structure,
    example_inputs: ExampleInputs,
    removals: Sequence[Units],
    setting: Setting,
    batch: int,
    *,
    launches: int = LAUNCHES,
    rounds: int = 6,
    tell: Tell = silent,
) -> list[list[float]]:
    """Seconds of whole models after removals, the shortest of each launch; weights do not matter.

    Errors: those of the surgery, the export and the runtime.
    """
    inputs = sized(example_inputs, batch)
    with tempfile.TemporaryDirectory() as place:
        files = []
        feed = save_inputs(inputs, Path(place) / "inputs.safetensors")
        for number, remove in enumerate(removals):
            tell("exporting whole models", number, len(removals))
            smaller = model
            if remove:
                plan = describe(structure, remove, type(model).__name__)
                smaller = apply(model, plan, example_inputs, structure=structure, pure=True)
            file = write_timed(smaller, inputs, setting.runtime, Path(place) / f"model-{number}")
            files.append(File(str(file), str(feed)))
        return time_subjects(
            files, setting, launches=launches, rounds=rounds,
            tell=lambda done, total: tell("timing whole models", done, total),
        )  # fmt: skip


def write_timed(model: nn.Module, inputs: ExampleInputs, runtime: str, stem: Path) -> Path:
    """A file of a model for a runtime, to be timed and not kept: unchecked, of one batch size."""
    suffixes = abilities(runtime).suffixes
    suffix = ".onnx" if ".onnx" in suffixes else suffixes[0]
    name = next(n for n in EXPORTERS.names() if suffix_of(n) == suffix)
    write: Any = EXPORTERS.get(name)
    path = stem.with_suffix(suffix)
    write(model, inputs, path, dynamic_batch=False, check=False)
    return path


def save_inputs(inputs: ExampleInputs, path: Path) -> Path:
    """Flat input tensors, numbered in their order, for a process that times."""
    leaves = [t for t in pytree.tree_leaves(as_arguments(inputs)) if isinstance(t, torch.Tensor)]
    save_file(
        {f"{n:04}": np.ascontiguousarray(t.detach().cpu().numpy()) for n, t in enumerate(leaves)},
        path,
    )
    return path


def sized(example_inputs: ExampleInputs, count: int) -> Any:
    """Example inputs cut or repeated to a batch of ``count``, as (args, kwargs)."""

    def cut(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() == 0:
            return tensor
        times = -(-count // tensor.shape[0])
        return tensor.repeat(times, *[1] * (tensor.dim() - 1))[:count]

    return map_tensors(cut, as_arguments(example_inputs))

"""A table of what layers cost on a runtime, measured once per machine.

For every layer of a model the widths that a removal may leave it span a grid; the corners and a
few places between are measured, all of them multiples of the step that the runtime likes
(``staircase.py``); what lies between them is interpolated.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from secateur.errors import InputError
from secateur.journal import drop_partial_line
from secateur.measure.layer import Layer
from secateur.measure.layers import multiply_adds
from secateur.measure.machine import fingerprint
from secateur.measure.staircase import PROBES, WIDTHS, Rule, Rules, learn, probes
from secateur.measure.timing import LAUNCHES, Setting, profiled, read, time_subjects, written
from secateur.places import cache_root
from secateur.runtimes import abilities

SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)  # of a full width: where it is measured
FEW = (0.25, 0.5, 1.0)  # on a runtime that takes seconds to load a layer
EMPTY = Layer("linear", (1, 1, 1))  # what a call costs by itself

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Family:
    """A layer of a model at its full widths, and the widths of each axis that are measured."""

    full: Layer
    axes: tuple[tuple[int, ...], ...]

    def layers(self) -> list[Layer]:
        """Everything on the grid."""
        return [
            Layer(self.full.kind, sizes, self.full.settings)
            for sizes in itertools.product(*self.axes)
        ]


@dataclass(frozen=True, eq=False)
class Table:
    """Seconds of layers, measured and between what was measured.

    seconds: of every layer that was measured, the median of its launches, without ``call``.
    spread: of each, (largest - smallest) / median of its launches.
    call: what calling the runtime costs by itself, once for a model. probed: the times of
    ``staircase.WIDTHS`` behind each rule.
    """

    setting: Setting
    rules: Rules
    seconds: Mapping[Layer, float]
    spread: Mapping[Layer, float]
    call: float
    families: Mapping[Layer, Family]
    probed: Mapping[tuple[str, int], tuple[float, ...]] = field(default_factory=dict)
    _known: dict[tuple[Layer, Layer], float] = field(default_factory=dict, repr=False)
    _grids: dict[Layer, np.ndarray] = field(default_factory=dict, repr=False)

    def time(self, full: Layer, layer: Layer) -> float:
        """Seconds of a layer that stands where ``full`` stood in the dense model."""
        key = full, layer
        if key not in self._known:
            self._known[key] = self._time(full, layer)
        return self._known[key]

    def _time(self, full: Layer, layer: Layer) -> float:
        if not all(layer.sizes):
            return 0.0
        family = self.families[full]
        grid = self._grids.get(full)
        if grid is None:
            values = [self.seconds[one] for one in family.layers()]
            grid = np.array(values).reshape([len(axis) for axis in family.axes])
            self._grids[full] = grid
        factor = 1.0
        for axis, (width, whole) in enumerate(zip(layer.sizes, full.sizes, strict=True)):
            factor *= rule_of(self.rules, full, axis).factor(width, whole)
        return factor * _interpolated(grid, family.axes, layer.sizes)


def _interpolated(grid: np.ndarray, axes: Sequence[Sequence[int]], at: Sequence[float]) -> float:
    """Linear along every axis; beyond the smallest measured width the last slope goes on, but no
    lower than in proportion to the width."""
    value = grid
    for points, x in zip(axes, at, strict=True):
        if len(points) == 1:
            value = value[0]
            continue
        upper = int(np.clip(np.searchsorted(points, x), 1, len(points) - 1))
        low, high = points[upper - 1], points[upper]
        share = (x - low) / (high - low)
        line = value[upper - 1] * (1 - share) + value[upper] * share
        value = np.maximum(line, value[0] * x / points[0]) if x < points[0] else line
    return float(value)


def rule_of(rules: Rules, full: Layer, axis: int) -> Rule:
    """The rule of an axis of a layer; those that were not probed cost in proportion.

    Groups of one channel are channels: they follow the output channels of a convolution.
    """
    if full.kind == "convolution" and axis == 0:
        depthwise = full.sizes[0] > 1 and full.sizes[1] == 1
        return rules.get(("convolution", 2), Rule()) if depthwise else Rule()
    if full.kind == "convolution" and full.sizes[0] > 1:
        return Rule()
    return rules.get((full.kind, axis), Rule())


def family_of(full: Layer, least: Layer, rules: Rules, few: bool = False) -> Family:
    """The grid between a layer's smallest and full widths."""
    axes = []
    for axis, (low, high) in enumerate(zip(least.sizes, full.sizes, strict=True)):
        if low >= high:
            axes.append((high,))
            continue
        step = max(1, rule_of(rules, full, axis).step)
        points: set[float] = {high}
        for share in FEW if few else SHARES:
            width = max(share * high, min(low, high))
            points.add(min(high, max(1, round(width / step)) * step if step <= width else width))
        axes.append(tuple(sorted({max(1, round(p)) for p in points})))
    return Family(full, tuple(axes))


def measured_table(
    pairs: Sequence[tuple[Layer, Layer]],
    setting: Setting,
    *,
    folder: Path | None = None,
    launches: int = LAUNCHES,
    tell: Tell = lambda what, done, total: None,
) -> Table:
    """Measure what is not measured yet of the layers of a model.

    pairs: (full, least) of every layer. folder: where times are kept, by machine and runtime;
    None for ``latency`` in the user's cache. An interrupted measurement goes on where it was.
    Errors: InputError of the runtime; for a folder that cannot be written.
    """
    store = _Store(folder or cache_root() / "latency", setting, launches)
    few = abilities(setting.runtime).slow
    rules: dict[tuple[str, int], Rule] = {}
    probed: dict[tuple[str, int], tuple[float, ...]] = {}
    if not few:
        wanted = [EMPTY, *probes()]
        times = store.measure(wanted, lambda done, total: tell("probing widths", done, total))
        rules = learn(times)
        probed = {
            place: tuple(times[make(width)] for width in WIDTHS) for place, make in PROBES.items()
        }
    least: dict[Layer, Layer] = {}
    for full, low in pairs:
        other = least.get(full, low)
        sizes = tuple(map(min, low.sizes, other.sizes))
        least[full] = Layer(full.kind, sizes, full.settings)
    families = {full: family_of(full, low, rules, few) for full, low in least.items()}
    wanted = [layer for family in families.values() for layer in family.layers()]
    times = store.measure(
        [EMPTY, *wanted], lambda done, total: tell("measuring layers", done, total)
    )
    call = times[EMPTY]
    seconds = {
        layer: _without(0.0 if profiled(layer, setting.runtime) else call, value, layer)
        for layer, value in times.items()
    }
    return Table(setting, rules, seconds, store.spread(wanted), call, families, probed)


def _without(call: float, seconds: float, layer: Layer) -> float:
    """The layer's own share: never nothing, for the smallest are lost in the noise of a call."""
    least = multiply_adds(layer) / 1e13  # no core does ten million millions a second
    return max(seconds - call, 0.02 * seconds, least)


class _Store:
    """Times on this machine, one line for each layer and launch."""

    def __init__(self, folder: Path, setting: Setting, launches: int) -> None:
        name = f"{setting.runtime}-{setting.precision}-{setting.threads}-threads"
        self.path = folder / f"{name}-{fingerprint(setting.runtime)}.jsonl"
        self.setting, self.launches = setting, launches
        self.known: dict[Layer, list[float]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            drop_partial_line(self.path)
            text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        except OSError as error:
            raise InputError(f"latency tables cannot be kept in {folder}: {error}") from error
        for line in text.splitlines():
            try:
                subject, seconds = json.loads(line)
                layer = read(subject)
            except (ValueError, TypeError, IndexError) as error:
                raise InputError(f"{self.path} is no table of latency; delete it") from error
            if isinstance(layer, Layer):
                self.known.setdefault(layer, []).append(float(seconds))

    def measure(
        self, wanted: Sequence[Layer], tell: Callable[[int, int], None]
    ) -> dict[Layer, float]:
        unique = list(dict.fromkeys(wanted))
        for launch in range(self.launches):
            missing = [one for one in unique if len(self.known.get(one, ())) <= launch]
            if not missing:
                continue
            offset = launch * len(missing)

            def told(done: int, _: int, offset: int = offset, count: int = len(missing)) -> None:
                tell(offset + done, count * self.launches)

            found = time_subjects(missing, self.setting, launches=1, tell=told, seed=launch)
            lines = []
            for layer, times in zip(missing, found, strict=True):
                self.known.setdefault(layer, []).extend(times)
                lines.append(json.dumps([written(layer), times[0]]))
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
                file.flush()
                os.fsync(file.fileno())
        return {one: statistics.median(self.known[one]) for one in unique}

    def spread(self, layers: Sequence[Layer]) -> dict[Layer, float]:
        found = {}
        for layer in layers:
            times = self.known[layer]
            found[layer] = (max(times) - min(times)) / statistics.median(times)
        return found

"""Latency of a model at any widths, from the table of its layers and a few whole models.

    seconds = scale * (sum of the layers) + rate * (elements that other operations write) + call

A layer by itself pays for putting its inputs into the order that the runtime likes, and finds its
weights in the cache; inside a model it does neither. One factor for all layers, and one rate for
everything that is not a layer, are fitted on whole models of several widths. So is the call, which
is below zero where layers by themselves cost more each than inside a model, whatever their width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from secateur.errors import InputError
from secateur.measure.layer import Layer
from secateur.measure.layers import Layers
from secateur.measure.table import Table
from secateur.structure.branches import Branch
from secateur.structure.groups import Group
from secateur.structure.ledger import Cost
from secateur.structure.structure import Removal, Structure

BETTER = 0.8  # of the error without it: what a further factor must reach
FLOORS = np.array([0.0, 0.0, -np.inf])  # of the scale, the rate and the call
LEAST = 0.5  # of what the layers add up to: the least that a call below zero leaves of it


@dataclass(frozen=True, eq=False)
class Predictor:
    """seconds: of a removal. dense: the layers of the dense model. measured: its seconds, where it
    was measured: they are known, and what is predicted for others is a share of them.
    """

    layers: Layers
    table: Table
    dense: tuple[Layer, ...]
    call: float
    scale: float = 1.0
    rate: float = 0.0
    error: float | None = None
    measured: float | None = None

    def seconds(self, remove: Removal) -> float:
        """Predicted for one run of the model after a removal; of the dense model as measured."""
        if self.measured is not None and not any(len(units) for units in remove.values()):
            return self.measured
        return self.predicted(remove)

    def predicted(self, remove: Removal) -> float:
        """As ``seconds``, of the dense model too: what its layers and all else add up to."""
        sums, traffic = self.features(remove)
        layers = self.scale * sums
        return max(self.call + layers, LEAST * layers) + self.rate * traffic

    def features(self, remove: Removal) -> tuple[float, float]:
        """What the table says of all layers together, and the elements that others write."""
        found, traffic = self.layers.at(remove)
        pairs = zip(self.dense, found, strict=True)
        times = (self.table.time(full, layer) for full, layer in pairs if 0 not in layer.sizes)
        return sum(times), traffic


def predictor(layers: Layers, table: Table) -> Predictor:
    """As the table has it, before any whole model was measured."""
    return Predictor(layers, table, tuple(layers.at({})[0]), table.call)


def fitted(before: Predictor, removals: Sequence[Removal], seconds: Sequence[float]) -> Predictor:
    """With factors from the measured seconds of whole models.

    Relative distances are made small, by a scale and a rate that are not negative.
    Layers and the traffic between them shrink together, and a few models cannot always tell one
    from the other; so the rate and the call are believed only where each model is predicted
    better from the others with them than without. ``error`` is the mean relative distance of
    these predictions.
    Errors: InputError for fewer than two models.
    """
    if len(removals) < 2:
        raise InputError(f"{len(removals)} whole models were measured; give at least 2 to fit to")
    target = np.asarray(seconds, np.float64)
    features = np.array([before.features(remove) for remove in removals], np.float64)
    columns = np.column_stack([features, np.ones(len(target))])
    used, error = [0], _left_out(columns, target, [0])
    for more in ([0, 1], [0, 2], [0, 1, 2]):
        if len(target) > len(more) + 1:
            better = _left_out(columns, target, more)
            if better < BETTER * error:
                used, error = more, better
    found = _factors(columns, target, used)
    dense = [s for r, s in zip(removals, seconds, strict=True) if not r]
    return replace(
        before, scale=found[0], rate=found[1], call=found[2], error=error,
        measured=dense[0] if dense else None,
    )  # fmt: skip


def _left_out(columns: np.ndarray, target: np.ndarray, used: list[int]) -> float:
    """The mean relative distance where each row is predicted from the others."""
    misses = []
    for place in range(len(target)):
        rest = np.arange(len(target)) != place
        factors = _factors(columns[rest], target[rest], used)
        misses.append(abs(float(columns[place] @ factors) / target[place] - 1))
    return float(np.mean(misses))


def _factors(columns: np.ndarray, target: np.ndarray, used: list[int]) -> np.ndarray:
    """A factor for each column, 0 for those that are not used."""
    from scipy.optimize import lsq_linear  # a third of a second, for who never asks for latency

    relative = columns[:, used] / target[:, None]
    scales = np.maximum(relative.max(axis=0), 1e-30)
    bounds = (FLOORS[used], np.inf)
    found = np.zeros(columns.shape[1])
    result = lsq_linear(relative / scales, np.ones(len(target)), bounds, method="bvls")
    found[used] = result.x / scales
    return found


@dataclass(frozen=True)
class TimedCost(Cost):
    """With the predicted seconds of one run."""

    latency: float = 0.0


@dataclass(frozen=True, eq=False)
class TimedStructure:
    """A structure whose costs have a latency; policies ask for nothing else."""

    structure: Structure
    predictor: Predictor

    @property
    def groups(self) -> tuple[Group, ...]:
        return self.structure.groups

    @property
    def branches(self) -> tuple[Branch, ...]:
        return self.structure.branches

    @property
    def fingerprint(self) -> str:
        return self.structure.fingerprint

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self.structure.shapes

    @property
    def part(self) -> str:
        return self.structure.part

    def uses(self, tensor: str) -> tuple[str, ...]:
        return self.structure.uses(tensor)

    def cost(self, remove: Removal) -> TimedCost:
        """Parameters, FLOPs, bytes and seconds after a removal."""
        cost = self.structure.cost(remove)
        return TimedCost(cost.params, cost.flops, cost.bytes, self.predictor.seconds(remove))

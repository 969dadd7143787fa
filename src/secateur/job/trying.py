"""A trial of widths: compensate a removal, and compare the answers on held-out inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from secateur.job.racing import Interval, Race, looks
from secateur.refining import Units
from secateur.repair.compensation import compensate
from secateur.repair.divergence import divergences
from secateur.repair.prefixes import Prefixes
from secateur.repair.streaming import Side, walk
from secateur.structure.inputs import ExampleInputs, as_arguments, batch_size
from secateur.structure.structure import Structure
from secateur.surgery.tensors import named_tensors

HELD = 2  # one calibration batch in so many is held out
SHARES = (1 / 9, 1 / 3)  # of the samples, for trials that say who deserves a whole one

Answers = list[list[Tensor]]


@dataclass(frozen=True, eq=False)
class Tried:
    """losses: float64 [held-out samples that were read], of how many were offered. lost: the
    interval of the race that was lost, where there was one."""

    losses: Tensor
    offered: int
    lost: Interval | None = None


@dataclass(frozen=True, eq=False)
class Trying:
    """What trials are made with.

    dense: dense-shaped, with what was learnt so far. samples: calibration inputs, two batches at
    least. classes: of the task, or None. foreign: whether the samples are not of the task.
    What trials have in common is done once: the answers of the dense network, and what removals
    that are alike in the first layers have solved there.
    """

    dense: nn.Module
    structure: Structure
    samples: Sequence[ExampleInputs]
    classes: int | None
    seed: int
    foreign: bool
    _prefixes: dict[int, Prefixes] = field(default_factory=dict)

    @property
    def fit(self) -> Sequence[ExampleInputs]:
        """What layers are solved on."""
        return self.samples[: -max(1, len(self.samples) // HELD)]

    @property
    def held(self) -> Sequence[ExampleInputs]:
        """What answers are compared on."""
        return self.samples[len(self.fit) :]

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the batches that layers are solved on, those that cheaper trials can take."""
        counts = {max(1, round(share * len(self.fit))) for share in SHARES}
        return tuple(sorted(n / len(self.fit) for n in counts if n < len(self.fit)))

    def prefixes(self, share: float = 1.0) -> Prefixes:
        """What trials on a share of the samples have in common."""
        return self._prefixes.setdefault(_part(self.fit, share), Prefixes(self.structure))

    def __call__(self, remove: Units) -> Tensor:
        """float64 [held-out samples]: losses."""
        return self.tried(remove).losses

    def tried(self, remove: Units, race: Race | None = None, share: float = 1.0) -> Tried:
        """Losses, until a race against others' is lost. share: of the samples of both kinds."""
        fit = self.fit[: _part(self.fit, share)]
        found = compensate(
            self.dense, self.structure, remove, fit, self.seed, foreign=self.foreign,
            prefixes=self.prefixes(share),
        )  # fmt: skip
        side = Side(self.structure, remove, {**self._own, **found.tensors}, [])
        count = _part(self.held, share)
        sizes = [batch_size(as_arguments(batch)) or 1 for batch in self.held[:count]]
        stops = looks(sum(sizes)) if race is not None else ()
        losses = torch.zeros(0, dtype=torch.float64)
        first = 0
        for end in [*_ends(sizes, stops), count]:
            (answers,) = walk(self.structure, [side.on(self.held[first:end])])
            found_here = divergences(self._wanted[first:end], answers, self.classes)
            losses, first = torch.cat([losses, found_here]), end
            if race is not None and end < count and bool(losses.isfinite().all()):
                lost = race.lost(losses.numpy())
                if lost is not None:
                    return Tried(losses, sum(sizes), lost)
        return Tried(losses, sum(sizes))

    @cached_property
    def _own(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in named_tensors(self.dense).items()}

    @cached_property
    def _wanted(self) -> Answers:
        """What the dense network answers to the held-out inputs."""
        (answers,) = walk(self.structure, [Side(self.structure, {}, self._own, self.held)])
        return answers


def _part(batches: Sequence[ExampleInputs], share: float) -> int:
    return max(1, math.ceil(share * len(batches) - 1e-9))


def _ends(sizes: Sequence[int], stops: Sequence[int]) -> list[int]:
    """How many batches hold so many samples at least, where those are not all of them."""
    counts = np.cumsum(sizes)
    found = dict.fromkeys(int(np.searchsorted(counts, stop)) + 1 for stop in stops)
    return [count for count in found if count < len(sizes)]

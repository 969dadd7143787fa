"""A trial of widths: compensate a removal, and compare the answers on held-out inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from secateur.refining import Units
from secateur.repair.compensation import compensate
from secateur.repair.divergence import divergences
from secateur.structure.inputs import ExampleInputs
from secateur.structure.structure import Structure

HELD = 2  # one calibration batch in so many is held out


@dataclass(frozen=True, eq=False)
class Trying:
    """What trials are made with.

    dense: dense-shaped, with what was learnt so far. samples: calibration inputs, two batches at
    least. classes: of the task, or None. foreign: whether the samples are not of the task.
    """

    dense: nn.Module
    structure: Structure
    samples: Sequence[ExampleInputs]
    classes: int | None
    seed: int
    foreign: bool

    @property
    def fit(self) -> Sequence[ExampleInputs]:
        """What layers are solved on."""
        return self.samples[: -max(1, len(self.samples) // HELD)]

    def __call__(self, remove: Units) -> Tensor:
        """float64 [held-out samples]: losses."""
        fit = self.fit
        held = self.samples[len(fit) :]
        found = compensate(
            self.dense, self.structure, remove, fit, self.seed, held, foreign=self.foreign
        )
        wanted, given = found.wanted[len(fit) :], found.answers[len(fit) :]
        return divergences(wanted, given, self.classes)

"""Answers that stay within a range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from secateur.regularisers import regulariser
from secateur.regularisers._weights import from_zero, positive
from secateur.training.extensions import Batch, Extension, Moment, Scene
from secateur.training.losses import logits_of


@regulariser("output-range")
@dataclass(frozen=True)
class OutputRange:
    """Answers beyond a bound are pulled back: weight * sum max(0, |y| - bound)^2 of a sample.

    The mean over the batch is added to the loss. A bound at or above the largest answer changes
    nothing. A 99.9-percentile of the dense model's answers is a fair bound.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    bound: float = 10.0
    weight: float = 1e-2

    def __post_init__(self) -> None:
        positive("output-range", bound=self.bound)
        from_zero("output-range", weight=self.weight)

    def begin(self, scene: Scene) -> Extension:
        """The extension for one training."""
        return _Bounded(self)


class _Bounded(Extension):
    reads_batch = True

    def __init__(self, settings: OutputRange) -> None:
        self.settings = settings

    def penalty(self, at: Moment, batch: Batch) -> Tensor:
        answers = logits_of(batch.outputs).float()
        return self.settings.weight * beyond(answers, self.settings.bound)


def beyond(answers: Tensor, bound: float) -> Tensor:
    """sum max(0, |y| - bound)^2 over each sample, the mean over samples: a scalar."""
    return (answers.abs() - bound).clamp_min(0).square().sum() / len(answers)

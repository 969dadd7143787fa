"""Share of labels among the best scores."""

from __future__ import annotations

import math
from typing import Any

import torch

from secateur.errors import InputError
from secateur.metrics._classes import scores_and_labels
from secateur.metrics._samples import right_answers


class Top:
    """Share of labels whose score is among the ``best`` highest."""

    higher_is_better = True
    is_share = True
    name = "accuracy"
    best = 1

    def __init__(self) -> None:
        self._right = 0
        self._count = 0

    def add(self, outputs: Any, targets: Any, loss: float) -> None:
        """Take in a batch. Errors: InputError for fewer classes than ``best``, unfit shapes."""
        scores, labels = scores_and_labels(self.name, outputs, targets)
        if scores.shape[1] <= self.best and self.best > 1:
            raise InputError(f"{self.name} of {scores.shape[1]} classes is always 1; use accuracy")
        found = scores.topk(self.best, dim=1).indices
        self._right += int((found == labels[:, None]).sum())
        self._count += len(labels)

    @classmethod
    def of_samples(cls, outputs: Any, targets: Any) -> torch.Tensor | None:
        """1 for each right answer, else 0; see ``_samples``."""
        return right_answers(cls.best, outputs, targets)

    def value(self) -> float:
        """The share so far, NaN where no label counts."""
        return self._right / self._count if self._count else math.nan

"""``output-entropy``: how undecided a model is."""

from __future__ import annotations

import math
from typing import Any

import torch

from secateur.metrics import metric
from secateur.metrics._classes import scores_and_labels


@metric("output-entropy")
class OutputEntropy:
    """Mean entropy of the answers' distribution in nats; a floor keeps a model from overconfidence.

    Between 0 (sure of one class everywhere) and log C (all C classes alike).
    """

    higher_is_better = True
    is_share = False

    def __init__(self) -> None:
        self._total = 0.0
        self._count = 0

    def add(self, outputs: Any, targets: Any, loss: float) -> None:
        """Take in a batch. Errors: InputError for answers that are no classes."""
        scores, labels = scores_and_labels("output-entropy", outputs, targets)
        p = scores.double().softmax(1)
        self._total += float(torch.special.entr(p).sum())
        self._count += len(labels)

    def value(self) -> float:
        """The mean so far, NaN where no label counts."""
        return self._total / self._count if self._count else math.nan

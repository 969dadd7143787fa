"""``loss``: what training lowers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils import _pytree as pytree

from secateur.metrics import metric
from secateur.metrics._samples import default_losses


@metric("loss")
class Loss:
    """Mean loss over samples; lower is better."""

    higher_is_better = False
    is_share = False

    def __init__(self) -> None:
        self._total = 0.0
        self._count = 0

    def add(self, outputs: Any, targets: Any, loss: float) -> None:
        """Take in the mean loss of a batch."""
        samples = count_samples(targets)
        self._total += loss * samples
        self._count += samples

    @staticmethod
    def of_samples(outputs: Any, targets: Any) -> torch.Tensor | None:
        """Those of single samples; see ``_samples``."""
        return default_losses(outputs, targets)

    def value(self) -> float:
        """The mean so far."""
        return self._total / self._count if self._count else math.nan


def count_samples(targets: Any) -> int:
    """Size of the batch that targets [N, ...] belong to, also where they are a dict or tuple."""
    leaves = [leaf for leaf in pytree.tree_leaves(targets) if isinstance(leaf, torch.Tensor)]
    return len(leaves[0]) if leaves and leaves[0].dim() else len(targets)

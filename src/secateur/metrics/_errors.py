"""Mean of an error over all values."""

from __future__ import annotations

import math
from typing import Any

import torch

from secateur.errors import InputError
from secateur.training.losses import is_classes, logits_of


class MeanError:
    """Mean over all values of what ``of`` makes of the differences, summed in float64."""

    higher_is_better = False
    is_share = False
    name = "error"

    def __init__(self) -> None:
        self._total = 0.0
        self._count = 0

    def of(self, differences: torch.Tensor) -> torch.Tensor:
        """Errors >= 0 of differences, of the same shape."""
        raise NotImplementedError

    def add(self, outputs: Any, targets: Any, loss: float) -> None:
        """Take in a batch. Errors: InputError for integer targets, or other shapes."""
        if not isinstance(targets, torch.Tensor) or is_classes(targets):
            raise InputError(
                f"{self.name} is for values, whose targets are floats, and these are integers or "
                "no tensor; use accuracy or loss"
            )
        values = logits_of(outputs)
        # Only [N] and [N, 1] are the same: anything else would broadcast to N × N differences.
        if values.numel() != targets.numel() or values.shape[:1] != targets.shape[:1]:
            raise InputError(
                f"{self.name}: the model returns {list(values.shape)} for targets "
                f"{list(targets.shape)}; expected the same shape"
            )
        differences = values.double().reshape(targets.shape) - targets.double()
        self._total += float(self.of(differences).sum())
        self._count += targets.numel()

    @classmethod
    def of_samples(cls, outputs: Any, targets: Any) -> torch.Tensor | None:
        """Means over the values of single samples; see ``_samples``."""
        if not isinstance(targets, torch.Tensor) or is_classes(targets) or not targets.dim():
            return None
        values = logits_of(outputs)
        if values.numel() != targets.numel() or values.shape[:1] != targets.shape[:1]:
            return None
        differences = values.double().reshape(targets.shape) - targets.double()
        return (
            cls().of(differences).flatten(1).mean(1) if targets.dim() > 1 else cls().of(differences)
        )

    def value(self) -> float:
        """The mean so far."""
        return self._total / self._count if self._count else math.nan

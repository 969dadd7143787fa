"""``mse``: mean squared error."""

from __future__ import annotations

import torch

from secateur.metrics import metric
from secateur.metrics._errors import MeanError


@metric("mse")
class MeanSquaredError(MeanError):
    """Mean squared error of float targets; lower is better."""

    name = "mse"

    def of(self, differences: torch.Tensor) -> torch.Tensor:
        """d²"""
        return differences.square()

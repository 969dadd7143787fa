"""``mae``: mean absolute error."""

from __future__ import annotations

import torch

from secateur.metrics import metric
from secateur.metrics._errors import MeanError


@metric("mae")
class MeanAbsoluteError(MeanError):
    """Mean absolute error of float targets; lower is better."""

    name = "mae"

    def of(self, differences: torch.Tensor) -> torch.Tensor:
        """|d|"""
        return differences.abs()

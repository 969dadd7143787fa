"""An extension that only adds a function of some weights to the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from secateur.training.extensions import Batch, Extension, Moment


class WeightPenalty(Extension):
    """weight * (sum over tensors of ``each``)."""

    def __init__(
        self, weight: float, weights: Iterable[nn.Parameter], each: Callable[[Tensor], Tensor]
    ) -> None:
        self.weight, self.weights, self.each = weight, list(weights), each

    def penalty(self, at: Moment, batch: Batch) -> Tensor:
        return self.weight * torch.stack([self.each(w).float() for w in self.weights]).sum()

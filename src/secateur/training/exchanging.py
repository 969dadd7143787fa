"""Other values in the place of parameters for a while: masked or gated weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Exchange:
    """Puts values into parameters and keeps their own until ``back``."""

    def __init__(self) -> None:
        self._own: list[tuple[nn.Parameter, Tensor]] = []

    @property
    def under_way(self) -> bool:
        """Whether other values are in place."""
        return bool(self._own)

    @torch.no_grad()
    def put(self, values: Mapping[nn.Parameter, Tensor]) -> None:
        """Put values into parameters; what each held is kept."""
        for parameter, value in values.items():
            self._own.append((parameter, parameter.detach().clone()))
            parameter.copy_(value)

    @torch.no_grad()
    def back(self) -> None:
        """Put back what was there."""
        for parameter, own in reversed(self._own):
            parameter.copy_(own)
        self._own.clear()

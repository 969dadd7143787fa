"""What the families share: the type of their tables and short words for inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from model_zoo.subjects import Subject

Table = dict[str, Callable[[], Subject]]


def tokens(length: int, vocabulary: int) -> Tensor:
    """A batch of two sequences of token numbers."""
    return torch.randint(1, vocabulary, (2, length))


def image(side: int, channels: int = 3) -> Tensor:
    """A batch of two square images."""
    return torch.randn(2, channels, side, side)

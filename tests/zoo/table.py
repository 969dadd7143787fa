"""What an entry of the zoo is, and short words to write member tables with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

Slices = Mapping[tuple[str, int], np.ndarray]


@dataclass(frozen=True)
class Expected:
    """One group of ``size`` units; member ``"conv1.weight:0" -> k``: k indices for each unit."""

    size: int
    members: Mapping[str, int]
    exact: bool = True


@dataclass(frozen=True)
class Entry:
    """A tiny net and its true groups, worked out by hand from the architecture.

    inputs:            example inputs, batch 2, every tensor with the batch first: a tuple, a
                       dict of keywords, or the pair (tuple, dict).
    groups:            all of them; nothing else may be prunable.
    module_surgery:    False where ``forward`` holds a size that pruning changes.
    adapted_reference: for statistics written by hand: turns a zeroed copy (and the indices kept
                       of every touched tensor dimension) into one whose statistic runs over the
                       survivors. ``nn`` norms need none.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    groups: tuple[Expected, ...]
    module_surgery: bool = True
    adapted_reference: Callable[[nn.Module, Slices], nn.Module] | None = None


def rows(layer: str, k: int = 1, bias: bool = True) -> dict[str, int]:
    """The outputs of a linear or convolution layer: weight dim 0 and bias."""
    members = {f"{layer}.weight:0": k}
    return members | {f"{layer}.bias:0": k} if bias else members


def cols(layer: str, k: int = 1) -> dict[str, int]:
    """The inputs of a linear or convolution layer: weight dim 1."""
    return {f"{layer}.weight:1": k}


def norm(layer: str, k: int = 1) -> dict[str, int]:
    """The affine pair of a layer, group or instance norm."""
    return {f"{layer}.weight:0": k, f"{layer}.bias:0": k}


def batchnorm(layer: str, k: int = 1) -> dict[str, int]:
    """The affine pair and the running statistics of a batch norm."""
    return norm(layer, k) | {f"{layer}.running_mean:0": k, f"{layer}.running_var:0": k}


def survivors(kept: Slices, tensor: str, dim: int, size: int) -> torch.Tensor:
    """Indices of a tensor dimension that stay: all ``size`` of them where it was not touched."""
    return torch.as_tensor(kept.get((tensor, dim), np.arange(size)), dtype=torch.long)


def floats(*shape: int) -> Callable[[], tuple[torch.Tensor, ...]]:
    """Inputs: one float tensor, batch 2."""
    return lambda: (torch.randn(2, *shape),)


def tokens(length: int, vocabulary: int) -> Callable[[], tuple[torch.Tensor, ...]]:
    """Inputs: one tensor of token numbers, batch 2."""
    return lambda: (torch.randint(0, vocabulary, (2, length)),)


def two_sequences() -> tuple[torch.Tensor, ...]:
    """Inputs: a sequence of 4 tokens of width 5, and one of 6 tokens of width 7."""
    return torch.randn(2, 4, 5), torch.randn(2, 6, 7)

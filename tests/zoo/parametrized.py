"""Weights computed from other tensors: torch's parametrizations, and buffers beside channels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from .table import Entry, Expected, Slices, cols, floats, rows

Wrap = Callable[[nn.Module], nn.Module]


class Wrapped(nn.Module):
    """Two convolutions and a linear layer, all under a parametrization."""

    def __init__(self, wrap: Wrap) -> None:
        super().__init__()
        self.conv1 = wrap(nn.Conv2d(3, 8, 3))
        self.conv2 = wrap(nn.Conv2d(8, 6, 3))
        self.fc = wrap(nn.Linear(6, 9))
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x)))).mean((2, 3))
        return self.head(F.relu(self.fc(x)))


class Orthogonal(nn.Module):
    """A base, turned by an orthogonal matrix: rows of the base leave, the turn stays whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.turn = parametrizations.orthogonal(nn.Linear(8, 8))
        self.fc = nn.Linear(8, 11)
        self.head = nn.Linear(11, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.fc(F.relu(self.turn(F.relu(self.first(x)))))))


class ChannelBuffers(nn.Module):
    """Statistics of the user's own in buffers of channel size, a mask among them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 7, 3)
        self.register_buffer("shift", torch.randn(7))
        self.register_buffer("scale", torch.rand(1, 7, 1, 1) + 0.5)
        self.register_buffer("mask", (torch.arange(7) != 3).view(7, 1, 1))
        self.conv2 = nn.Conv2d(7, 5, 3)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x) - self.get_buffer("shift").view(1, -1, 1, 1)
        x = F.relu(x * self.get_buffer("scale")) * self.get_buffer("mask")
        return self.head(F.relu(self.conv2(x)).mean((2, 3)))


class Divided(nn.Module):
    """Features whitened with fixed statistics, as embeddings and inputs often are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 7, 3)
        self.register_buffer("mean", torch.randn(1, 7, 1, 1))
        self.register_buffer("std", torch.rand(1, 7, 1, 1) + 0.5)
        self.conv2 = nn.Conv2d(7, 5, 3)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = (self.conv1(x) - self.get_buffer("mean")) / self.get_buffer("std")
        return self.head(F.relu(self.conv2(x)).mean((2, 3)))


def lengths_reference(model: nn.Module, kept: Slices) -> nn.Module:
    """A row of no length has no direction: g = 0 times any direction is the zero it stands for."""
    for name, direction in model.named_parameters():
        if name.endswith("weight.original1"):
            with torch.no_grad():
                direction[direction.flatten(1).norm(dim=1) == 0] = 1.0
    return model


def quotient_reference(model: nn.Module, kept: Slices) -> nn.Module:
    """What is divided by nothing is nothing: any other divisor says so too."""
    std = model.get_buffer("std")
    std[std == 0] = 1.0
    return model


def weight_norm_rows(layer: str) -> dict[str, int]:
    """Length, direction and bias."""
    weight = f"{layer}.parametrizations.weight"
    return {f"{weight}.original0:0": 1, f"{weight}.original1:0": 1, f"{layer}.bias:0": 1}


def spectral_rows(layer: str) -> dict[str, int]:
    """The matrix, its left singular vector and the bias."""
    weight = f"{layer}.parametrizations.weight"
    return {f"{weight}.original:0": 1, f"{weight}.0._u:0": 1, f"{layer}.bias:0": 1}


def spectral_cols(layer: str, kernel: int) -> dict[str, int]:
    """The matrix has a column for every place of the kernel; so has its right singular vector."""
    weight = f"{layer}.parametrizations.weight"
    return {f"{weight}.original:1": 1, f"{weight}.0._v:0": kernel}


ENTRIES = (
    Entry(
        "weight_norm",
        lambda: Wrapped(parametrizations.weight_norm),
        floats(3, 7, 7),
        (
            Expected(
                8, weight_norm_rows("conv1") | {"conv2.parametrizations.weight.original1:1": 1}
            ),
            Expected(6, weight_norm_rows("conv2") | {"fc.parametrizations.weight.original1:1": 1}),
            Expected(9, weight_norm_rows("fc") | cols("head")),
        ),
        adapted_reference=lengths_reference,
    ),
    Entry(
        "spectral_norm",
        lambda: Wrapped(parametrizations.spectral_norm),
        floats(3, 7, 7),
        (
            Expected(8, spectral_rows("conv1") | spectral_cols("conv2", 9)),
            Expected(6, spectral_rows("conv2") | spectral_cols("fc", 1)),
            Expected(9, spectral_rows("fc") | cols("head")),
        ),
    ),
    Entry(
        "orthogonal",
        Orthogonal,
        floats(5),
        (
            Expected(
                8,
                {"turn.parametrizations.weight.0.base:0": 1, "turn.bias:0": 1} | cols("fc"),
            ),
            Expected(11, rows("fc") | cols("head")),
        ),
    ),
    Entry(
        "channel_buffers",
        ChannelBuffers,
        floats(3, 7, 7),
        (
            Expected(7, rows("conv1") | {"shift:0": 1, "scale:1": 1, "mask:0": 1} | cols("conv2")),
            Expected(5, rows("conv2") | cols("head")),
        ),
    ),
    Entry(
        "divided_by_a_buffer",
        Divided,
        floats(3, 7, 7),
        (
            Expected(7, rows("conv1") | {"mean:1": 1, "std:1": 1} | cols("conv2")),
            Expected(5, rows("conv2") | cols("head")),
        ),
        adapted_reference=quotient_reference,
    ),
)

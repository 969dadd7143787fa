"""Slices, flips and rolls along channels, and writes through views."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, cols, floats, rows


class StridedSlices(nn.Module):
    """Even channels one way, odd channels the other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 14, 3)
        self.even = nn.Conv2d(7, 5, 1)
        self.odd = nn.Conv2d(7, 5, 3, padding=1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        return self.head((self.even(x[:, ::2]) + self.odd(x[:, 1::2])).mean((2, 3)))


class HalfUsed(nn.Module):
    """Only every third channel of the first layer is read; the others are idle but may leave."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 12)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.fc1(x))[:, ::3])


class InterleavedGate(nn.Module):
    """Even channels gated by their odd neighbours: 2i and 2i + 1 leave together."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.head((x[:, ::2] * torch.sigmoid(x[:, 1::2])).mean((2, 3)))


class ViewWrite(nn.Module):
    """A side branch is added into the first channels through a view."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 10, 3)
        self.side = nn.Conv2d(3, 4, 3)
        self.conv2 = nn.Conv2d(10, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        side = self.side(x)
        x = self.conv1(x)
        x[:, : side.shape[1]] += side
        return self.head(F.relu(self.conv2(F.relu(x))).mean((2, 3)))


class FlipRoll(nn.Module):
    """Channel movements: reversed order alone, and a roll by four tied to its source."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 7, 3)
        self.conv2 = nn.Conv2d(7, 12, 1)
        self.conv3 = nn.Conv2d(12, 10, 1)
        self.conv4 = nn.Conv2d(10, 9, 1)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(F.relu(self.conv1(x)).flip(1))
        x = F.relu(x + x.roll(4, 1))  # ties i, i + 4, i + 8 of 12
        x = self.conv3(x)
        x = F.relu(x * x.flip(1))  # ties i and 9 - i
        return self.head(F.relu(self.conv4(x)).roll(-2, 1).mean((2, 3)))


ENTRIES = (
    Entry(
        "strided_slices",
        StridedSlices,
        floats(3, 7, 7),
        (
            Expected(7, rows("conv1") | cols("even")),
            Expected(7, rows("conv1") | cols("odd")),
            Expected(5, rows("even") | rows("odd") | cols("head")),
        ),
        module_surgery=False,
    ),
    Entry(
        "half_used",
        HalfUsed,
        floats(5),
        (Expected(4, rows("fc1") | cols("head")), Expected(8, rows("fc1"))),
        module_surgery=False,
    ),
    Entry(
        "interleaved_gate",
        InterleavedGate,
        floats(3, 7, 7),
        (Expected(6, rows("conv1", 2) | cols("head")),),
    ),
    Entry(
        "view_write",
        ViewWrite,
        floats(3, 7, 7),
        (
            Expected(4, rows("conv1") | rows("side") | cols("conv2")),
            Expected(6, rows("conv1") | cols("conv2")),
            Expected(6, rows("conv2") | cols("head")),
        ),
    ),
    Entry(
        "flip_roll",
        FlipRoll,
        floats(3, 7, 7),
        (
            Expected(7, rows("conv1") | cols("conv2")),
            Expected(4, rows("conv2", 3) | cols("conv3", 3)),
            Expected(5, rows("conv3", 2) | cols("conv4", 2)),
            Expected(9, rows("conv4") | cols("head")),
        ),
        module_surgery=False,
    ),
)

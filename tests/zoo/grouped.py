"""Grouped and depthwise convolutions: units cross."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, batchnorm, cols, floats, rows


class DepthwiseSeparable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.bn2 = nn.BatchNorm2d(8)
        self.point = nn.Conv2d(8, 12, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.depth(x)))
        return self.head(F.relu(self.bn3(self.point(x))).mean((2, 3)))


class InvertedResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.expand = nn.Conv2d(6, 15, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(15)
        self.depth = nn.Conv2d(15, 15, 3, padding=1, groups=15, bias=False)
        self.bn2 = nn.BatchNorm2d(15)
        self.project = nn.Conv2d(15, 6, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = F.relu6(self.bn1(self.expand(x)))
        y = F.relu6(self.bn2(self.depth(y)))
        x = x + self.bn3(self.project(y))
        return self.head(x.mean((2, 3)))


class DepthwiseMultiplier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 5, 3)
        self.depth = nn.Conv2d(5, 10, 3, groups=5)
        self.point = nn.Conv2d(10, 7, 1)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.depth(F.relu(self.conv1(x))))
        return self.head(F.relu(self.point(x)).mean((2, 3)))


class GroupedConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3)
        self.bn1 = nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(12, 15, 3, groups=3)
        self.bn2 = nn.BatchNorm2d(15)
        self.head = nn.Linear(15, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.head(F.relu(self.bn2(self.conv2(x))).mean((2, 3)))


class ResNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.conv1 = nn.Conv2d(8, 12, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(12, 12, 3, padding=1, groups=3, bias=False)
        self.bn2 = nn.BatchNorm2d(12)
        self.conv3 = nn.Conv2d(12, 8, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.conv3(F.relu(self.bn2(self.conv2(y))))
        return self.head(F.relu(x + y).mean((2, 3)))


class GroupedResidual(nn.Module):
    """x + grouped(x): in-positions and out-positions are tied by the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3)
        self.conv = nn.Conv2d(12, 12, 3, padding=1, groups=3)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(F.relu(x + self.conv(x)).mean((2, 3)))


class GroupedChain(nn.Module):
    """Two grouped convolutions in a row; the last has one output per group."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(4, 9, 3)
        self.conv2 = nn.Conv1d(9, 12, 3, groups=3)
        self.conv3 = nn.Conv1d(12, 3, 1, groups=3)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))).mean(-1))


ENTRIES = (
    Entry(
        "depthwise_separable",
        DepthwiseSeparable,
        floats(3, 8, 8),
        (
            Expected(
                8,
                rows("conv1", bias=False)
                | batchnorm("bn1")
                | rows("depth")
                | batchnorm("bn2")
                | cols("point"),
            ),
            Expected(12, rows("point", bias=False) | batchnorm("bn3") | cols("head")),
        ),
    ),
    Entry(
        "inverted_residual",
        InvertedResidual,
        floats(3, 8, 8),
        (
            Expected(
                6,
                rows("stem")
                | cols("expand")
                | rows("project", bias=False)
                | batchnorm("bn3")
                | cols("head"),
            ),
            Expected(
                15,
                rows("expand", bias=False)
                | batchnorm("bn1")
                | rows("depth", bias=False)
                | batchnorm("bn2")
                | cols("project"),
            ),
        ),
    ),
    Entry(
        "depthwise_multiplier",
        DepthwiseMultiplier,
        floats(3, 8, 8),
        (
            Expected(5, rows("conv1") | rows("depth", 2) | cols("point", 2)),
            Expected(2, rows("depth", 5) | cols("point", 5)),
            Expected(7, rows("point") | cols("head")),
        ),
    ),
    Entry(
        "grouped_conv",
        GroupedConv,
        floats(3, 8, 8),
        (
            Expected(  # whole groups of the convolution
                3,
                rows("conv1", 4)
                | batchnorm("bn1", 4)
                | rows("conv2", 5)
                | batchnorm("bn2", 5)
                | cols("head", 5),
            ),
            Expected(4, rows("conv1", 3) | batchnorm("bn1", 3) | cols("conv2")),
            Expected(5, rows("conv2", 3) | batchnorm("bn2", 3) | cols("head", 3)),
        ),
    ),
    Entry(
        "resnext",
        ResNeXt,
        floats(3, 8, 8),
        (
            Expected(8, rows("stem") | cols("conv1") | rows("conv3") | cols("head")),
            Expected(
                3,
                rows("conv1", 4, bias=False)
                | batchnorm("bn1", 4)
                | rows("conv2", 4, bias=False)
                | batchnorm("bn2", 4)
                | cols("conv3", 4),
            ),
            Expected(4, rows("conv1", 3, bias=False) | batchnorm("bn1", 3) | cols("conv2")),
            Expected(4, rows("conv2", 3, bias=False) | batchnorm("bn2", 3) | cols("conv3", 3)),
        ),
    ),
    Entry(
        "grouped_residual",
        GroupedResidual,
        floats(3, 8, 8),
        (
            Expected(3, rows("stem", 4) | rows("conv", 4) | cols("head", 4)),
            Expected(4, rows("stem", 3) | cols("conv") | rows("conv", 3) | cols("head", 3)),
        ),
    ),
    Entry(
        "grouped_chain",
        GroupedChain,
        floats(4, 9),
        (
            Expected(3, rows("conv1", 3) | rows("conv2", 4) | rows("conv3") | cols("head")),
            Expected(3, rows("conv1", 3) | cols("conv2")),
            Expected(4, rows("conv2", 3) | cols("conv3")),
        ),
    ),
)

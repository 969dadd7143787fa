"""Layers in a row: every producer has one consumer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, batchnorm, cols, floats, rows


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 12)
        self.fc2 = nn.Linear(12, 9)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.fc2(F.relu(self.fc1(x)))))


class MlpDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 12)
        self.bn = nn.BatchNorm1d(12)
        self.head = nn.Linear(12, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(F.elu(self.bn(self.fc1(x))), 0.3, self.training))


class ConvChain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.conv2 = nn.Conv2d(8, 6, 3, bias=False)
        self.conv3 = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.relu(self.conv2(torch.sigmoid(self.conv1(x)))))


def conv_bn_relu() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 10, 3, bias=False),
        nn.BatchNorm2d(10),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout2d(0.1),
        nn.Conv2d(10, 7, 3, padding=1),
        nn.BatchNorm2d(7),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(7, 3),
    )


def conv_flatten() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6 * 4 * 4, 11),
        nn.ReLU(),
        nn.Linear(11, 3),
    )


class AdaptiveFlatten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 9, 3)
        self.head = nn.Linear(9 * 2 * 2, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.adaptive_avg_pool2d(F.relu(self.conv(x)), 2)
        return self.head(y.view(y.size(0), -1))


class Tcn(nn.Module):
    """Causal: the past is padded, the future never seen."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(4, 8, 3)
        self.conv2 = nn.Conv1d(8, 10, 3, dilation=2)
        self.skip = nn.Conv1d(4, 10, 1)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(F.pad(x, (2, 0))))
        y = F.relu(self.conv2(F.pad(y, (4, 0))))
        return self.head((y + self.skip(x))[:, :, -1])


def conv3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 6, 3),
        nn.BatchNorm3d(6),
        nn.GELU(),
        nn.AvgPool3d(2),
        nn.Conv3d(6, 5, 1),
        nn.Flatten(),
        nn.Linear(5 * 8, 3),
    )


def prelu() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.PReLU(8),
        nn.Conv2d(8, 6, 3),
        nn.PReLU(),  # one slope for all: a dim of size 1 never leaves
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.act1 = nn.LeakyReLU(0.1, inplace=True)
        self.conv2 = nn.Conv2d(8, 6, 3)
        self.act2 = nn.Hardswish(inplace=True)
        self.conv3 = nn.Conv2d(6, 9, 1)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(self.act2(self.conv2(self.act1(self.conv1(x)))))
        y.mul_(2.0).relu_()
        return self.head(y.mean((2, 3)))


class Upsample(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.mid = nn.Conv2d(8, 6, 3, padding=1)
        self.out = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.interpolate(F.relu(self.down(x)), scale_factor=2.0, mode="nearest")
        y = F.relu(self.mid(y))
        y = F.interpolate(y, size=(10, 10), mode="bilinear", align_corners=False)
        return self.out(y)


ENTRIES = (
    Entry(
        "mlp",
        Mlp,
        floats(5),
        (Expected(12, rows("fc1") | cols("fc2")), Expected(9, rows("fc2") | cols("head"))),
    ),
    Entry(
        "mlp_dropout",
        MlpDropout,
        floats(5),
        (Expected(12, rows("fc1") | batchnorm("bn") | cols("head")),),
    ),
    Entry(
        "conv_chain",
        ConvChain,
        floats(3, 8, 8),
        (
            Expected(8, rows("conv1") | cols("conv2")),
            Expected(6, rows("conv2", bias=False) | cols("conv3")),
        ),
    ),
    Entry(
        "conv_bn_relu",
        conv_bn_relu,
        floats(3, 8, 8),
        (
            Expected(10, rows("0", bias=False) | batchnorm("1") | cols("5")),
            Expected(7, rows("5") | batchnorm("6") | cols("10")),
        ),
    ),
    Entry(
        "conv_flatten",
        conv_flatten,
        floats(3, 8, 8),
        (Expected(6, rows("0") | cols("4", 16)), Expected(11, rows("4") | cols("6"))),
    ),
    Entry(
        "adaptive_flatten",
        AdaptiveFlatten,
        floats(3, 8, 8),
        (Expected(9, rows("conv") | cols("head", 4)),),
    ),
    Entry(
        "tcn",
        Tcn,
        floats(4, 12),
        (
            Expected(8, rows("conv1") | cols("conv2")),
            Expected(10, rows("conv2") | rows("skip") | cols("head")),
        ),
    ),
    Entry(
        "conv3d",
        conv3d,
        floats(2, 6, 6, 6),
        (
            Expected(6, rows("0") | batchnorm("1") | cols("4")),
            Expected(5, rows("4") | cols("6", 8)),
        ),
    ),
    Entry(
        "prelu",
        prelu,
        floats(3, 8, 8),
        (
            Expected(8, rows("0") | {"1.weight:0": 1} | cols("2")),
            Expected(6, rows("2") | cols("6")),
        ),
    ),
    Entry(
        "in_place",
        InPlace,
        floats(3, 8, 8),
        (
            Expected(8, rows("conv1") | cols("conv2")),
            Expected(6, rows("conv2") | cols("conv3")),
            Expected(9, rows("conv3") | cols("head")),
        ),
    ),
    Entry(
        "upsample",
        Upsample,
        floats(3, 8, 8),
        (Expected(8, rows("down") | cols("mid")), Expected(6, rows("mid") | cols("out"))),
    ),
)

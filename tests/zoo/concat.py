"""Concatenation, splitting and slicing along channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, batchnorm, cols, floats, rows


class DenseLayer(nn.Module):
    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, growth, 3, padding=1, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.conv(F.relu(self.norm(torch.cat(features, 1))))


class DenseBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.layer1 = DenseLayer(6, 4)
        self.layer2 = DenseLayer(10, 5)
        self.norm = nn.BatchNorm2d(15)
        self.transition = nn.Conv2d(15, 8, 1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        features.append(self.layer1(features))
        features.append(self.layer2(features))
        x = self.transition(F.relu(self.norm(torch.cat(features, 1))))
        return self.fc(F.avg_pool2d(x, 2).mean((2, 3)))


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.point = nn.Conv2d(8, 5, 1)
        self.reduce = nn.Conv2d(8, 4, 1)
        self.wide = nn.Conv2d(4, 6, 3, padding=1)
        self.pooled = nn.Conv2d(8, 3, 1)
        self.bn = nn.BatchNorm2d(14)
        self.merge = nn.Conv2d(14, 9, 1)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        branches = [
            self.point(x),
            self.wide(F.relu(self.reduce(x))),
            self.pooled(F.max_pool2d(x, 3, 1, 1)),
        ]
        x = F.relu(self.bn(torch.cat(branches, dim=1)))
        return self.head(F.relu(self.merge(x)).amax((2, 3)))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc1 = nn.Conv2d(3, 6, 3, padding=1)
        self.enc2 = nn.Conv2d(6, 10, 3, padding=1)
        self.mid = nn.Conv2d(10, 12, 3, padding=1)
        self.up2 = nn.ConvTranspose2d(12, 7, 2, 2)
        self.dec2 = nn.Conv2d(17, 9, 3, padding=1)
        self.up1 = nn.Upsample(scale_factor=2)
        self.dec1 = nn.Conv2d(15, 5, 3, padding=1)
        self.head = nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        e1 = F.relu(self.enc1(x))
        e2 = F.relu(self.enc2(F.max_pool2d(e1, 2)))
        y = F.relu(self.mid(F.max_pool2d(e2, 2)))
        y = F.relu(self.dec2(torch.cat([e2, self.up2(y)], 1)))
        y = F.relu(self.dec1(torch.cat([self.up1(y), e1], 1)))
        return self.head(y)


class UnequalSplit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 11, 3)
        self.side = nn.Conv2d(3, 5, 1)
        self.conv2 = nn.Conv2d(11, 7, 1)
        self.gate = nn.Linear(2, 4)
        self.head = nn.Linear(11, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = torch.split(F.relu(self.conv1(x)), [3, 6, 2], dim=1)
        y = F.relu(self.conv2(torch.cat([self.side(a), b], 1))).mean((2, 3))
        return self.head(torch.cat([y, self.gate(c.mean((2, 3)))], -1))


class InputConcat(nn.Module):
    """Features beside the raw input: the input's columns stay."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(15, 8, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        y = F.relu(self.conv2(torch.cat([y, x, F.relu(-y)], 1)))
        return self.head(y.mean((2, 3)))


ENTRIES = (
    Entry(
        "dense_block",
        DenseBlock,
        floats(3, 8, 8),
        (
            Expected(
                6,
                rows("stem")
                | batchnorm("layer1.norm")
                | cols("layer1.conv")
                | batchnorm("layer2.norm")
                | cols("layer2.conv")
                | batchnorm("norm")
                | cols("transition"),
            ),
            Expected(
                4,
                rows("layer1.conv", bias=False)
                | batchnorm("layer2.norm")
                | cols("layer2.conv")
                | batchnorm("norm")
                | cols("transition"),
            ),
            Expected(5, rows("layer2.conv", bias=False) | batchnorm("norm") | cols("transition")),
            Expected(8, rows("transition") | cols("fc")),
        ),
    ),
    Entry(
        "inception",
        Inception,
        floats(3, 7, 7),
        (
            Expected(8, rows("stem") | cols("point") | cols("reduce") | cols("pooled")),
            Expected(4, rows("reduce") | cols("wide")),
            Expected(5, rows("point") | batchnorm("bn") | cols("merge")),
            Expected(6, rows("wide") | batchnorm("bn") | cols("merge")),
            Expected(3, rows("pooled") | batchnorm("bn") | cols("merge")),
            Expected(9, rows("merge") | cols("head")),
        ),
    ),
    Entry(
        "unet",
        UNet,
        floats(3, 8, 8),
        (
            Expected(6, rows("enc1") | cols("enc2") | cols("dec1")),
            Expected(10, rows("enc2") | cols("mid") | cols("dec2")),
            Expected(12, rows("mid") | {"up2.weight:0": 1}),
            Expected(7, {"up2.weight:1": 1, "up2.bias:0": 1} | cols("dec2")),
            Expected(9, rows("dec2") | cols("dec1")),
            Expected(5, rows("dec1") | cols("head")),
        ),
    ),
    Entry(
        "unequal_split",
        UnequalSplit,
        floats(3, 7, 7),
        (
            Expected(3, rows("conv1") | cols("side")),
            Expected(6, rows("conv1") | cols("conv2")),
            Expected(2, rows("conv1") | cols("gate")),
            Expected(5, rows("side") | cols("conv2")),
            Expected(7, rows("conv2") | cols("head")),
            Expected(4, rows("gate") | cols("head")),
        ),
        module_surgery=False,
    ),
    Entry(
        "input_concat",
        InputConcat,
        floats(3, 7, 7),
        (Expected(6, rows("conv1") | cols("conv2", 2)), Expected(8, rows("conv2") | cols("head"))),
    ),
)

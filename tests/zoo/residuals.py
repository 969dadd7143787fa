"""Sums that tie all their producers and consumers together."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, batchnorm, cols, floats, rows


class BasicBlock(nn.Module):
    def __init__(self, width_in: int, inner: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, width_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width_out)
        self.down = None
        if stride != 1:
            conv = nn.Conv2d(width_in, width_out, 1, stride, bias=False)
            self.down = nn.Sequential(conv, nn.BatchNorm2d(width_out))

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.down is None else self.down(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + skip)


class BasicBlocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.block1 = BasicBlock(8, 10, 8, 1)
        self.block2 = BasicBlock(8, 12, 14, 2)
        self.fc = nn.Linear(14, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.block1(F.relu(self.bn(self.stem(x)))))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class Bottleneck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3)
        self.conv1 = nn.Conv2d(12, 5, 1)
        self.conv2 = nn.Conv2d(5, 7, 3, padding=1)
        self.conv3 = nn.Conv2d(7, 12, 1)
        self.head = nn.Conv2d(12, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
        y += x
        return self.head(F.relu(y))


class PreActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 11, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(11)
        self.conv2 = nn.Conv2d(11, 8, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
        return self.head(F.relu(self.bn3(x)).mean(dim=(2, 3)))


class PaddedShortcut(nn.Module):
    """ResNet's option A: 8 channels are padded with 2 + 4 zero channels to 14."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1 = nn.Conv2d(8, 9, 3, 2, 1)
        self.conv2 = nn.Conv2d(9, 14, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(14)
        self.head = nn.Linear(14, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        skip = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 4))
        y = F.relu(self.bn2(self.conv2(F.relu(self.conv1(x)))) + skip)
        return self.head(y.mean((2, 3)))


class LayerScale(nn.Module):
    """A residual branch times a parameter per channel, and drop-path while training."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 7, 3)
        self.conv1 = nn.Conv2d(7, 10, 3, padding=1)
        self.conv2 = nn.Conv2d(10, 7, 1, bias=False)
        self.gamma = nn.Parameter(torch.full((7,), 1e-2))
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        branch = self.gamma.view(-1, 1, 1) * self.conv2(F.silu(self.conv1(x)))
        if self.training:
            branch = branch * branch.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(0.8).div(0.8)
        return self.head((x + branch).mean((2, 3)))


ENTRIES = (
    Entry(
        "basic_blocks",
        BasicBlocks,
        floats(3, 8, 8),
        (
            Expected(
                8,
                rows("stem", bias=False)
                | batchnorm("bn")
                | cols("block1.conv1")
                | rows("block1.conv2", bias=False)
                | batchnorm("block1.bn2")
                | cols("block2.conv1")
                | cols("block2.down.0"),
            ),
            Expected(
                10,
                rows("block1.conv1", bias=False) | batchnorm("block1.bn1") | cols("block1.conv2"),
            ),
            Expected(
                12,
                rows("block2.conv1", bias=False) | batchnorm("block2.bn1") | cols("block2.conv2"),
            ),
            Expected(
                14,
                rows("block2.conv2", bias=False)
                | batchnorm("block2.bn2")
                | rows("block2.down.0", bias=False)
                | batchnorm("block2.down.1")
                | cols("fc"),
            ),
        ),
    ),
    Entry(
        "bottleneck",
        Bottleneck,
        floats(3, 7, 7),
        (
            Expected(12, rows("stem") | cols("conv1") | rows("conv3") | cols("head")),
            Expected(5, rows("conv1") | cols("conv2")),
            Expected(7, rows("conv2") | cols("conv3")),
        ),
    ),
    Entry(
        "pre_activation",
        PreActivation,
        floats(3, 7, 7),
        (
            Expected(
                8,
                rows("stem")
                | batchnorm("bn1")
                | cols("conv1")
                | rows("conv2", bias=False)
                | batchnorm("bn3")
                | cols("head"),
            ),
            Expected(11, rows("conv1", bias=False) | batchnorm("bn2") | cols("conv2")),
        ),
    ),
    Entry(
        "padded_shortcut",
        PaddedShortcut,
        floats(3, 8, 8),
        (
            Expected(  # channel i of the stem is channel i + 2 of the sum
                8,
                rows("stem")
                | cols("conv1")
                | rows("conv2", bias=False)
                | batchnorm("bn2")
                | cols("head"),
            ),
            Expected(6, rows("conv2", bias=False) | batchnorm("bn2") | cols("head")),
            Expected(9, rows("conv1") | cols("conv2")),
        ),
        module_surgery=False,
    ),
    Entry(
        "layer_scale",
        LayerScale,
        floats(3, 7, 7),
        (
            Expected(
                7,
                rows("stem")
                | cols("conv1")
                | rows("conv2", bias=False)
                | {"gamma:0": 1}
                | cols("head"),
            ),
            Expected(10, rows("conv1") | cols("conv2")),
        ),
    ),
)

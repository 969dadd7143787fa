"""ShuffleNet units: chunk, branch, concatenate, shuffle."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, batchnorm, cols, floats, rows


class ShuffleUnit(nn.Module):
    def __init__(self, half: int, inner: int) -> None:
        super().__init__()
        self.point1 = nn.Conv2d(half, inner, 1)
        self.depth = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.bn = nn.BatchNorm2d(inner)
        self.point2 = nn.Conv2d(inner, half, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        right = self.point2(self.bn(self.depth(F.relu(self.point1(right)))))
        x = torch.cat([left, F.relu(right)], dim=1)
        batch, width, height, length = x.shape
        x = x.view(batch, 2, width // 2, height, length).transpose(1, 2).contiguous()
        return x.view(batch, width, height, length)


class ShuffleNet(nn.Module):
    def __init__(self, *inner: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3)
        self.units = nn.ModuleList(ShuffleUnit(6, width) for width in inner)
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for unit in self.units:
            x = unit(x)
        return self.head(x)


def inside(unit: str, inner: int) -> Expected:
    """The inner width of a shuffle unit."""
    return Expected(
        inner,
        rows(f"{unit}.point1")
        | rows(f"{unit}.depth", bias=False)
        | batchnorm(f"{unit}.bn")
        | cols(f"{unit}.point2"),
    )


ENTRIES = (
    Entry(
        "shuffle_unit",
        lambda: ShuffleNet(7),
        floats(3, 8, 8),
        (
            inside("units.0", 7),
            # the untouched half and the result of the branch meet in the shuffle's view (2, 6)
            Expected(6, rows("stem") | rows("units.0.point2") | cols("head", 2)),
            Expected(6, rows("stem") | cols("units.0.point1")),
        ),
        module_surgery=False,
    ),
    Entry(
        "shuffle_units",
        lambda: ShuffleNet(7, 9),
        floats(3, 8, 8),
        (
            inside("units.0", 7),
            inside("units.1", 9),
            Expected(6, rows("stem") | cols("units.0.point1")),
            # shuffled channel 2p + g is position p of half g; positions 0-2 stay untouched by
            # the second unit, positions 3-5 go into its branch
            Expected(
                3,
                rows("stem") | rows("units.0.point2") | rows("units.1.point2", 2) | cols("head", 4),
            ),
            Expected(3, rows("stem") | rows("units.0.point2") | cols("units.1.point1", 2)),
        ),
        module_surgery=False,
    ),
)

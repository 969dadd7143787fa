"""Attention over channels and over space in convolutional nets."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, Slices, batchnorm, cols, floats, rows, survivors


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.fc1 = nn.Conv2d(8, 3, 1)
        self.fc2 = nn.Conv2d(3, 8, 1)
        self.conv2 = nn.Conv2d(8, 6, 3)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = x * torch.sigmoid(self.fc2(F.silu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(F.relu(self.conv2(x)).mean((2, 3)))


class SqueezeExciteLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 9, 3)
        self.fc1 = nn.Linear(9, 4, bias=False)
        self.fc2 = nn.Linear(4, 9)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        batch, width, _, _ = x.size()
        gate = F.hardsigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))
        x = x + x * gate.view(batch, width, 1, 1)
        return self.head(F.relu(x).mean((2, 3)))


class CbamChannel(nn.Module):
    """Average and maximum over space go through one shared pair of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 10, 3)
        self.squeeze = nn.Sequential(
            nn.Conv2d(10, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 10, 1, bias=False)
        )
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        average = self.squeeze(F.adaptive_avg_pool2d(x, 1))
        largest = self.squeeze(F.adaptive_max_pool2d(x, 1))
        return self.head((x * torch.sigmoid(average + largest)).mean((2, 3)))


class CbamSpatial(nn.Module):
    """Mean and maximum across channels: statistics over the survivors once channels leave."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 9, 3)
        self.conv = nn.Conv2d(2, 1, 3, padding=1)
        self.head = nn.Linear(9, 3)

    def describe(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True).values], 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x * torch.sigmoid(self.conv(self.describe(x)))).mean((2, 3)))


def cbam_spatial_reference(model: nn.Module, kept: Slices) -> nn.Module:
    assert isinstance(model, CbamSpatial)
    alive, describe = survivors(kept, "stem.weight", 0, 9), model.describe
    model.describe = lambda x: describe(x[:, alive])  # type: ignore[method-assign]
    return model


class ChannelSoftmax(nn.Module):
    """Every channel is weighted by a softmax across channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 7, 3)
        self.head = nn.Linear(7, 3)

    def weigh(self, x: Tensor) -> Tensor:
        return F.softmax(x, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x * self.weigh(x)).sum((2, 3)))


def channel_softmax_reference(model: nn.Module, kept: Slices) -> nn.Module:
    assert isinstance(model, ChannelSoftmax)
    absent = torch.ones(7, dtype=torch.bool)
    absent[survivors(kept, "stem.weight", 0, 7)] = False
    model.weigh = lambda x: F.softmax(  # type: ignore[method-assign]
        x.masked_fill(absent.view(1, -1, 1, 1), float("-inf")), dim=1
    )
    return model


class EfficientChannelAttention(nn.Module):
    """A convolution along the channels: neighbours matter, so the first layer stays whole."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.along = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        gate = torch.sigmoid(self.along(x.mean((2, 3)).unsqueeze(1))).squeeze(1)
        x = self.conv2(x * gate[:, :, None, None])
        return self.head(F.relu(x).mean((2, 3)))


class GlobalContext(nn.Module):
    """GCNet: a softmax over positions gathers one context vector."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.key = nn.Conv2d(8, 1, 1)
        self.down = nn.Conv2d(8, 5, 1)
        self.up = nn.Conv2d(5, 8, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        weight = F.softmax(self.key(x).flatten(2), dim=-1)
        context = torch.matmul(x.flatten(2), weight.transpose(1, 2)).unsqueeze(-1)
        x = x + self.up(F.relu(self.down(context)))
        return self.head(F.relu(x).mean((2, 3)))


class SelectiveKernel(nn.Module):
    """A softmax chooses between two branches, channel by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Conv2d(3, 6, 3, padding=1)
        self.large = nn.Conv2d(3, 6, 5, padding=2)
        self.squeeze = nn.Linear(6, 4)
        self.choose = nn.Linear(4, 12)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        branches = torch.stack([F.relu(self.small(x)), F.relu(self.large(x))], dim=1)
        hidden = F.relu(self.squeeze(branches.sum(1).mean((2, 3))))
        weight = F.softmax(self.choose(hidden).view(x.shape[0], 2, -1, 1, 1), dim=1)
        return self.head((branches * weight).sum(1).mean((2, 3)))


ENTRIES = (
    Entry(
        "squeeze_excite",
        SqueezeExcite,
        floats(3, 8, 8),
        (
            Expected(
                8,
                rows("stem") | batchnorm("bn") | cols("fc1") | rows("fc2") | cols("conv2"),
            ),
            Expected(3, rows("fc1") | cols("fc2")),
            Expected(6, rows("conv2") | cols("head")),
        ),
    ),
    Entry(
        "squeeze_excite_linear",
        SqueezeExciteLinear,
        floats(3, 7, 7),
        (
            Expected(9, rows("stem") | cols("fc1") | rows("fc2") | cols("head")),
            Expected(4, rows("fc1", bias=False) | cols("fc2")),
        ),
    ),
    Entry(
        "cbam_channel",
        CbamChannel,
        floats(3, 7, 7),
        (
            Expected(
                10,
                rows("stem") | cols("squeeze.0") | rows("squeeze.2", bias=False) | cols("head"),
            ),
            Expected(4, rows("squeeze.0", bias=False) | cols("squeeze.2")),
        ),
    ),
    Entry(
        "cbam_spatial",
        CbamSpatial,
        floats(3, 7, 7),
        (Expected(9, rows("stem") | cols("head"), exact=False),),
        adapted_reference=cbam_spatial_reference,
    ),
    Entry(
        "channel_softmax",
        ChannelSoftmax,
        floats(3, 7, 7),
        (Expected(7, rows("stem") | cols("head"), exact=False),),
        adapted_reference=channel_softmax_reference,
    ),
    Entry(
        "channel_neighbours",
        EfficientChannelAttention,
        floats(3, 7, 7),
        (Expected(6, rows("conv2") | cols("head")),),
    ),
    Entry(
        "global_context",
        GlobalContext,
        floats(3, 7, 7),
        (
            Expected(8, rows("stem") | cols("key") | cols("down") | rows("up") | cols("head")),
            Expected(5, rows("down") | cols("up")),
        ),
    ),
    Entry(
        "selective_kernel",
        SelectiveKernel,
        floats(3, 7, 7),
        (
            Expected(
                6,
                rows("small") | rows("large") | cols("squeeze") | rows("choose", 2) | cols("head"),
            ),
            Expected(4, rows("squeeze") | cols("choose")),
        ),
    ),
)

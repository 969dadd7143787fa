"""Gated linear units."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, cols, floats, rows


class GluChunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 16)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.fc1(x).chunk(2, dim=-1)
        return self.head(value * torch.sigmoid(gate))


class ConvGlu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(4, 14, 3)
        self.conv2 = nn.Conv1d(7, 6, 3)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv2(F.glu(self.conv1(x), dim=1))).mean(-1))


class SwiGlu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.gate = nn.Linear(8, 13, bias=False)
        self.up = nn.Linear(8, 13, bias=False)
        self.down = nn.Linear(13, 8, bias=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.down(F.silu(self.gate(x)) * self.up(x))
        return self.head(x)


class HighwayGate(nn.Module):
    """g * new + (1 - g) * old: the gate is one half where its slices are zero, the rest zero."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 9)
        self.new = nn.Linear(9, 9)
        self.gate = nn.Linear(9, 9)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        g = torch.sigmoid(self.gate(x))
        return self.head(g * F.relu(self.new(x)) + (1.0 - g) * x)


ENTRIES = (
    Entry("glu_chunk", GluChunk, floats(5), (Expected(8, rows("fc1", 2) | cols("head")),)),
    Entry(
        "conv_glu",
        ConvGlu,
        floats(4, 9),
        (
            Expected(7, rows("conv1", 2) | cols("conv2")),
            Expected(6, rows("conv2") | cols("head")),
        ),
    ),
    Entry(
        "swiglu",
        SwiGlu,
        floats(5),
        (
            Expected(
                8,
                rows("embed") | cols("gate") | cols("up") | rows("down", bias=False) | cols("head"),
            ),
            Expected(13, rows("gate", bias=False) | rows("up", bias=False) | cols("down")),
        ),
    ),
    Entry(
        "highway_gate",
        HighwayGate,
        floats(5),
        (
            Expected(
                9,
                rows("embed")
                | rows("new")
                | cols("new")
                | rows("gate")
                | cols("gate")
                | cols("head"),
            ),
        ),
    ),
)

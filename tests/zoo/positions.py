"""Constants: stored positions are sliced like parameters, computed ones in the graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, cols, floats, norm, rows, tokens


def waves(length: int, width: int) -> Tensor:
    """Sines of geometric wavelengths, [length, width]."""
    rate = 10.0 ** -(torch.arange(width) / width)
    return torch.sin(torch.arange(length)[:, None] * rate + 0.3)


class StoredPositions(nn.Module):
    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.register_buffer("positions", waves(20, 8).unsqueeze(0))
        self.fc = nn.Linear(8, 9)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) * 8**0.5 + self.positions[:, : x.size(1)]
        return self.head(F.relu(self.fc(x)).mean(1))


class ComputedPositions(nn.Module):
    """The constant is rebuilt at every call with a width written into the code."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 10)
        self.norm = nn.LayerNorm(10)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + waves(x.shape[1], 10).to(x)
        return self.head(self.norm(x))


class LearnedPositions(nn.Module):
    """A second embedding is looked up with numbers made on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 9, padding_idx=0)
        self.places = nn.Embedding(16, 9)
        self.fc = nn.Linear(9, 7)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        place = torch.arange(x.shape[1], device=x.device)
        y = torch.tanh(self.fc(self.words(x) + self.places(place)))
        return self.head(y.masked_fill((x == 0).unsqueeze(-1), 0.0).sum(1))


ENTRIES = (
    Entry(
        "stored_positions",
        StoredPositions,
        tokens(6, 11),
        (
            Expected(8, {"embed.weight:1": 1, "positions:2": 1} | cols("fc")),
            Expected(9, rows("fc") | cols("head")),
        ),
    ),
    Entry(
        "computed_positions",
        ComputedPositions,
        floats(6, 4),
        (Expected(10, rows("embed") | norm("norm") | cols("head"), exact=False),),
        module_surgery=False,
    ),
    Entry(
        "learned_positions",
        LearnedPositions,
        tokens(6, 11),
        (
            Expected(9, {"words.weight:1": 1, "places.weight:1": 1} | cols("fc")),
            Expected(7, rows("fc") | cols("head")),
        ),
    ),
)

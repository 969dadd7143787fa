"""Constants that forward makes and then writes into, and sizes that the data decide."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, cols, floats, rows


class WrittenIndex(nn.Module):
    """Which row of a table each place gets is written in place, as BEiT does for its bias."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 6)
        self.table = nn.Parameter(torch.randn(2, 6))
        self.mix = nn.Linear(3, 2)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        index = torch.zeros(3, dtype=torch.long)
        index[1:] = 2
        index[:1][0] = 3
        index += 1
        x = F.relu(self.fc1(x) + self.table[index % 2])
        return self.head(self.mix(x.transpose(1, 2)).transpose(1, 2))


class WrittenScale(nn.Module):
    """A factor for each channel, written in place after it is made."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.ones(8, dtype=x.dtype)
        scale[2:] = 3.0
        scale[::4] *= 0.5
        return self.head(self.fc1(x).tanh() * scale)


class ChosenTokens(nn.Module):
    """How many tokens are read is up to the data."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 7)
        self.fc2 = nn.Linear(7, 9)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc1(x).tanh()
        chosen = h[x.sum(-1) > 0]
        return self.head(F.relu(self.fc2(chosen))).sum(0) + self.head(self.fc2(h)).mean(1)


ENTRIES = (
    Entry(
        "written_index", WrittenIndex, floats(3, 5),
        (Expected(6, rows("fc1") | {"table:1": 1} | cols("head")),),
    ),
    Entry("written_scale", WrittenScale, floats(5),
          (Expected(8, rows("fc1") | cols("head")),), module_surgery=False),
    Entry(
        "chosen_tokens", ChosenTokens, floats(4, 5),
        (Expected(7, rows("fc1") | cols("fc2")), Expected(9, rows("fc2") | cols("head"))),
    ),
)  # fmt: skip

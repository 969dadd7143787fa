"""Attention of one head whose scale is taken from its width in various ways."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .table import Entry, Expected, cols, floats, rows


class Projections(nn.Module):
    """Query, key, value and output of one head, whose width the class keeps as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 6
        self.q = nn.Linear(5, 6)
        self.k = nn.Linear(5, 6)
        self.v = nn.Linear(5, 7)
        self.o = nn.Linear(7, 3)

    def heads(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        return x.view(batch, length, 1, self.width).transpose(1, 2)

    def read(self, scores: Tensor, x: Tensor) -> Tensor:
        return self.o(torch.softmax(scores, -1).squeeze(1) @ self.v(x))


class DividedScores(Projections):
    """The scores by the root of the width."""

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.heads(self.q(x)), self.heads(self.k(x))
        return self.read(q @ k.transpose(2, 3) / math.sqrt(self.width), x)


class ScaledQuery(Projections):
    """The query by the root of its last dimension, before its halves are turned."""

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.heads(self.q(x)), self.heads(self.k(x))
        turn = torch.arange(x.shape[1], device=x.device).to(x.dtype)[:, None] * 0.1
        q = q * turn.cos() - q * turn.sin()
        return self.read((q * q.shape[-1] ** -0.5) @ k.transpose(2, 3), x)


class NormedQuery(Projections):
    """The query is normalised with weights of its own: they take the scale."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.norm(self.heads(self.q(x))), self.heads(self.k(x))
        return self.read(q @ k.transpose(2, 3) / math.sqrt(self.width), x)


class SharedQuery(Projections):
    """The query is read elsewhere too, where no scale may follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.also = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.q(x), self.heads(self.k(x))
        scores = self.heads(q) @ k.transpose(2, 3) / math.sqrt(self.width)
        return self.read(scores, x) + self.also(q)


class RootOfTensor(Projections):
    """The width goes through a tensor, which export lifts out of the graph."""

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.heads(self.q(x)), self.heads(self.k(x))
        root = torch.sqrt(torch.tensor(q.shape[-1], dtype=torch.float64)).to(x.dtype)
        return self.read(q @ k.transpose(2, 3) / root, x)


QUERY_KEY = Expected(6, rows("q") | rows("k"))
VALUE = Expected(7, rows("v") | cols("o"))

ENTRIES = (
    Entry("divided_scores", DividedScores, floats(4, 5), (QUERY_KEY, VALUE)),
    Entry("scaled_query", ScaledQuery, floats(4, 5), (QUERY_KEY, VALUE)),
    Entry("normed_query", NormedQuery, floats(4, 5),
          (Expected(6, rows("q") | rows("norm") | rows("k"), exact=False), VALUE)),
    Entry("shared_query", SharedQuery, floats(4, 5),
          (Expected(6, rows("q") | rows("k") | cols("also")), VALUE), module_surgery=False),
    Entry("root_of_tensor", RootOfTensor, floats(4, 5), (QUERY_KEY, VALUE), module_surgery=False),
)  # fmt: skip

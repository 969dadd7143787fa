"""Elements chosen by data: gather, scatter, sort along one dimension; constants made in forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, cols, floats, rows


class OrderedTokens(nn.Module):
    """Tokens put in the order of a learned score by gather: channels pass."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(5, 1)
        self.fc1 = nn.Linear(5, 9)
        self.mix = nn.Linear(4, 3)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        score, order = self.score(x).sort(1)
        x = F.relu(self.fc1(x))
        x = torch.gather(x, 1, order.expand(-1, -1, x.shape[2])) * score
        return self.head(self.mix(x.transpose(1, 2)).transpose(1, 2))


class SummedTokens(nn.Module):
    """Tokens added into places that data chooses: channels pass, and stay zero where they left."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(5, 1)
        self.fc1 = nn.Linear(5, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        score = self.score(x)
        place = (score > 0).long()
        x = F.relu(self.fc1(x)) * score
        return self.head(torch.zeros_like(x).scatter_add(1, place.expand_as(x), x))


class AddedRows(nn.Module):
    """Rows added to, and copied over, places that a buffer chooses (experts do so)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 8)
        self.register_buffer("rank", torch.tensor([0.3, -1.0, 2.0, 0.1]))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x, order = F.relu(self.fc1(x)), self.get_buffer("rank").argsort()
        y = torch.zeros_like(x).index_add(1, order[:3], x[:, :3])
        return self.head(y.index_copy(1, order[3:], 2 * x[:, 3:]))


class PutRows(AddedRows):
    """Rows written to places that a buffer chooses."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc1(x))
        y = torch.zeros_like(x)
        y[:, self.get_buffer("rank").argsort()] = x
        return self.head(y)


class LargestValues(nn.Module):
    """The two largest of each channel over time."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 10)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fc1(x).topk(2, dim=1).values)


class Repeated(nn.Module):
    """Every channel twice in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 6)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.fc1(x)).repeat_interleave(2, dim=1))


class Scaled(nn.Module):
    """Divides by a constant that it makes in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) / torch.sqrt(torch.tensor(4.0, dtype=x.dtype))


class InnerConstant(nn.Module):
    """The constant belongs to an inner module of the captured graph."""

    def __init__(self) -> None:
        super().__init__()
        self.scaled = nn.Sequential(Scaled())
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.scaled(x)))


ENTRIES = (
    Entry(
        "ordered_tokens", OrderedTokens, floats(4, 5),
        (Expected(9, rows("fc1") | cols("head")),),
    ),
    Entry("summed_tokens", SummedTokens, floats(4, 5), (Expected(8, rows("fc1") | cols("head")),)),
    Entry("added_rows", AddedRows, floats(4, 5), (Expected(8, rows("fc1") | cols("head")),)),
    Entry("put_rows", PutRows, floats(4, 5), (Expected(8, rows("fc1") | cols("head")),)),
    Entry("largest_values", LargestValues, floats(4, 5),
          (Expected(10, rows("fc1") | cols("head")),)),
    Entry("repeated", Repeated, floats(5), (Expected(6, rows("fc1") | cols("head", 2)),)),
    Entry("inner_constant", InnerConstant, floats(5),
          (Expected(7, rows("scaled.0.fc") | cols("head")),)),
)  # fmt: skip

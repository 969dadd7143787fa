"""Recurrent layers: a hidden unit owns one row of every gate and one column of the recurrence."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .table import Entry, Expected, cols, floats, rows, tokens


class Recurrent(nn.Module):
    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.rnn = rnn
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(x))[0][:, -1])


class Packed(nn.Module):
    """Sequences of unequal lengths, packed; their mean is taken over what they hold."""

    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.rnn = rnn
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.embed(x), lengths, True, enforce_sorted=False)
        answers, counts = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.head(answers.sum(1) / counts.unsqueeze(1))


class ElmanLoop(nn.Module):
    """A recurrence unrolled by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(4, 8)
        self.again = nn.Linear(8, 8, bias=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.into(x[:, 0]))
        for step in range(1, x.shape[1]):
            hidden = torch.tanh(self.into(x[:, step]) + self.again(hidden))
        return self.head(hidden)


class Cells(nn.Module):
    """A cell called step by step; the first state is zero."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.cell = cell
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        state = None
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class ExplicitStates(nn.Module):
    """First states of zeros, made with the width that the module remembers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Embedding(11, 5)
        self.rnn = nn.LSTM(5, width, batch_first=True)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        hidden = torch.zeros(1, x.shape[0], self.width, dtype=x.dtype, device=x.device)
        cell = torch.zeros(1, x.shape[0], self.width, dtype=x.dtype, device=x.device)
        return self.head(self.rnn(x, (hidden, cell))[0][:, -1])


class ExplicitCell(nn.Module):
    """The same with a cell; the width is a word of the module around it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Embedding(11, 5)
        self.cell = nn.LSTMCell(5, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        hidden = x.new_zeros(x.shape[0], self.width)
        cell = torch.zeros(x.shape[0], self.width, dtype=x.dtype)
        for step in range(x.shape[1]):
            hidden, cell = self.cell(x[:, step], (hidden, cell))
        return self.head(hidden)


def cell_gates(count: int) -> tuple[Expected, ...]:
    """The groups of ``Cells`` with ``count`` gates."""
    stacked = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return (
        Expected(5, {"embed.weight:1": 1, "cell.weight_ih:1": 1}),
        Expected(
            7,
            {f"cell.{name}:0": count for name in stacked} | {"cell.weight_hh:1": 1} | cols("head"),
        ),
    )


def gates(count: int) -> tuple[Expected, ...]:
    """The groups of ``Recurrent`` with ``count`` gates."""
    return (
        Expected(5, {"embed.weight:1": 1, "rnn.weight_ih_l0:1": 1}),
        Expected(
            7,
            {
                "rnn.weight_ih_l0:0": count,
                "rnn.weight_hh_l0:0": count,
                "rnn.weight_hh_l0:1": 1,
                "rnn.bias_ih_l0:0": count,
                "rnn.bias_hh_l0:0": count,
            }
            | cols("head"),
        ),
    )


def unequal() -> tuple[Tensor, Tensor]:
    """Inputs: four tokens of each sample, and how many of them count."""
    return torch.randint(0, 11, (2, 4)), torch.tensor([2, 4])


ENTRIES = (
    Entry("lstm", lambda: Recurrent(nn.LSTM(5, 7, batch_first=True)), tokens(4, 11), gates(4)),
    Entry("gru", lambda: Recurrent(nn.GRU(5, 7, batch_first=True)), tokens(4, 11), gates(3)),
    Entry("packed_gru", lambda: Packed(nn.GRU(5, 7, batch_first=True)), unequal, gates(3)),
    Entry("lstm_cell", lambda: Cells(nn.LSTMCell(5, 7)), tokens(3, 11), cell_gates(4)),
    Entry("gru_cell", lambda: Cells(nn.GRUCell(5, 7)), tokens(3, 11), cell_gates(3)),
    Entry("rnn_cell", lambda: Cells(nn.RNNCell(5, 7)), tokens(3, 11), cell_gates(1)),
    Entry("explicit_states", lambda: ExplicitStates(7), tokens(4, 11), gates(4)),
    Entry("explicit_cell", lambda: ExplicitCell(7), tokens(3, 11), cell_gates(4)),
    Entry(
        "elman_loop",
        ElmanLoop,
        floats(4, 4),
        (
            Expected(
                8,
                rows("into") | rows("again", bias=False) | cols("again") | cols("head"),
            ),
        ),
    ),
)

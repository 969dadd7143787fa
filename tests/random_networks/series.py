"""Recurrent layers and cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from .values import Fixed, Option, Value, rank_in


class Series(nn.Module):
    """A recurrent layer of torch, or a loop over one of its cells."""

    def __init__(self, x: Value, what: Recurrent) -> None:
        super().__init__()
        self.what = what
        if what.kind.endswith("cell"):
            kind = nn.GRUCell if what.kind == "GRU cell" else nn.LSTMCell
            self.cell = kind(x.shape[1], what.hidden)
            return
        if what.start == "learnt":
            self.first = nn.Parameter(torch.zeros(what.hidden))
        elif what.start == "given":
            self.given = nn.Linear(x.shape[1], what.hidden)
        kind = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}[what.kind]
        self.layer = kind(
            x.shape[1], what.hidden, what.layers, batch_first=True, bidirectional=what.both
        )

    def start(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """A first state that is not zero, learnt or constant."""
        count = self.what.layers * (2 if self.what.both else 1)
        if self.what.start == "ones":
            state = torch.ones(count, x.shape[0], self.what.hidden, dtype=x.dtype)
        elif self.what.start == "learnt":
            state = self.first[None, None].expand(count, x.shape[0], -1)
        else:
            state = self.given(x[:, 0]).sigmoid()[None].repeat(count, 1, 1)
        return (state, state) if self.what.kind == "LSTM" else state

    def forward(self, x: Tensor) -> Tensor:
        if self.what.kind == "GRU cell":
            state = x.new_zeros(x.shape[0], self.what.hidden)
            for place in range(min(x.shape[1], 2)):
                state = self.cell(x[:, place], state)
            return state
        if self.what.kind == "LSTM cell":
            state = cell = x.new_zeros(x.shape[0], self.what.hidden)
            for place in range(min(x.shape[1], 2)):
                state, cell = self.cell(x[:, place], (state, cell))
            return torch.cat([state, cell], -1)
        y, state = self.layer(x, self.start(x)) if self.what.start else self.layer(x)
        if not self.what.last:
            return y
        state = state[0] if isinstance(state, tuple) else state
        return torch.cat([state[-1], state[0]], -1)


@dataclass(frozen=True)
class Recurrent:
    """A recurrence over the first dimension; ``last``: its final state alone."""

    kind: Literal["LSTM", "GRU", "RNN", "GRU cell", "LSTM cell"]
    hidden: int
    layers: int
    both: bool
    last: bool
    start: Literal["", "ones", "learnt", "given"] = ""

    def build(self, values: Sequence[Value]) -> nn.Module:
        return Series(values[0], self)

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        return ((False,) if self.last or self.kind.endswith("cell") else (True, False),)


def recurrences(draw: st.DrawFn, x: Value) -> Recurrent:
    """One or two layers, in one direction or both."""
    kind = draw(st.sampled_from(["LSTM", "GRU", "RNN", "GRU cell", "LSTM cell"]))
    layers = draw(st.integers(1, 2))
    both, last = draw(st.booleans()), draw(st.booleans())
    start = draw(st.sampled_from(["", "", "ones", "learnt", "given"]))
    return Recurrent(kind, draw(st.integers(2, 5)), layers, both, last, start)  # type: ignore[arg-type]


SERIES = (Option(rank_in(2), recurrences),)

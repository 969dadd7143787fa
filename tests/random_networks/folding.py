"""Pieces around other pieces: dimensions folded into the batch, windows, more tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from .attention import attentions, multihead_attentions
from .blocks import mlps
from .layers import convolutions, linears, norms
from .series import recurrences
from .values import Fixed, Option, Piece, Value, rank_in


class Fold(nn.Module):
    """A module on a batch that holds the first dimension as well."""

    def __init__(self, inner: nn.Module, by_hand: bool) -> None:
        super().__init__()
        self.inner, self.by_hand = inner, by_hand

    def forward(self, x: Tensor) -> Tensor:
        if self.by_hand:
            y = self.inner(x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]))
            return y.view(x.shape[0], x.shape[1], *y.shape[1:])
        return self.inner(x.flatten(0, 1)).unflatten(0, (-1, x.shape[1]))


@dataclass(frozen=True)
class Folded:
    """``inner`` on every index of the first dimension by itself."""

    inner: Piece
    by_hand: bool

    def rest(self, values: Sequence[Value]) -> list[Value]:
        return [Value(x.shape[1:], x.fixed[1:]) for x in values]

    def build(self, values: Sequence[Value]) -> nn.Module:
        return Fold(self.inner.build(self.rest(values)), self.by_hand)

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        (inner,) = self.inner.fixed(self.rest(values))
        return ((values[0].fixed[0], *inner),)


def foldeds(draw: st.DrawFn, x: Value) -> Folded:
    """Around layers, attention and recurrences."""
    rest = Value(x.shape[1:], x.fixed[1:])
    makers = [linears, norms, mlps]
    if rest.rank == 2:
        makers += [convolutions, recurrences]
        makers += [attentions, multihead_attentions] if rest.fixed[0] else []
    return Folded(draw(st.sampled_from(makers))(draw, rest), draw(st.booleans()))


class Window(nn.Module):
    """Attention inside of windows of 2 x 2, as Swin has it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        t = x.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1)
        t = self.inner(t.reshape(-1, 4, channels))
        t = t.view(batch, height // 2, width // 2, 2, 2, t.shape[-1])
        return t.permute(0, 5, 1, 3, 2, 4).reshape(batch, t.shape[-1], height, width)


@dataclass(frozen=True)
class Windows:
    """``inner`` on the four tokens of every window."""

    inner: Piece

    def build(self, values: Sequence[Value]) -> nn.Module:
        (x,) = values
        return Window(self.inner.build([Value((4, x.shape[0]), (True, x.fixed[0]))]))

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        return ((False, *values[0].fixed[1:]),)


def windows(draw: st.DrawFn, x: Value) -> Windows:
    """With attention of any kind."""
    inside = Value((4, x.shape[0]), (True, x.fixed[0]))
    return Windows(draw(st.sampled_from([attentions, multihead_attentions]))(draw, inside))


def has_windows(x: Value) -> bool:
    """An image that stays, of even height and width."""
    even = x.rank == 3 and x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0
    return even and all(x.fixed[1:]) and not x.vocabulary


class TokenPrompt(nn.Module):
    """Learnt tokens before the others, and a learnt position for each."""

    def __init__(self, length: int, width: int, count: int, positions: bool) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, count, width))
        self.position = nn.Parameter(torch.zeros(1, length + count, width)) if positions else None

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        return x if self.position is None else x + self.position


@dataclass(frozen=True)
class Prompt:
    """Class tokens before the tokens, perhaps with positions."""

    count: int
    positions: bool

    def build(self, values: Sequence[Value]) -> nn.Module:
        length, width = values[0].shape
        return TokenPrompt(length, width, self.count, self.positions)

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        return ((values[0].fixed[0] and self.count == 1, values[0].fixed[1]),)


def prompts(draw: st.DrawFn, x: Value) -> Prompt:
    """One token or two."""
    return Prompt(draw(st.integers(1, 2)), draw(st.booleans()))


FOLDING = (
    Option(rank_in(2, 3), foldeds),
    Option(has_windows, windows),
    Option(rank_in(2), prompts),
)

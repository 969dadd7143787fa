"""Larger pieces: the blocks that nets of images and tokens are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import BATCH_NORMS, CONVOLUTIONS
from .values import WIDTHS, Fixed, Function, Option, Value, divisors, rank_in


class ResidualBlock(nn.Module):
    """An inverted bottleneck around one form of spatial convolution, with squeeze-excite."""

    def __init__(self, x: Value, what: Residual) -> None:
        super().__init__()
        convolution, norm = CONVOLUTIONS[x.rank], BATCH_NORMS[x.rank]
        channels, hidden = x.shape[0], what.hidden
        self.expand = convolution(channels, hidden, 1, bias=False)
        self.norm1 = norm(hidden)
        self.inner = convolution(hidden, hidden, 3, padding=1, groups=what.groups, bias=False)
        self.norm2 = norm(hidden)
        if what.squeeze:
            self.reduce = convolution(hidden, what.squeeze, 1)
            self.excite = convolution(what.squeeze, hidden, 1)
        self.squeeze = what.squeeze
        self.project = convolution(hidden, channels, 1)
        self.scale = nn.Parameter(torch.ones(channels)) if what.scaled else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.norm1(self.expand(x)))
        y = F.relu(self.norm2(self.inner(y)))
        if self.squeeze:
            space = list(range(2, y.dim()))
            gate = self.excite(F.relu(self.reduce(y.mean(space, keepdim=True))))
            y = y * gate.sigmoid()
        y = self.project(y)
        if self.scale is not None:
            y = y * self.scale.view(-1, *[1] * (y.dim() - 2))
        return x + y


@dataclass(frozen=True)
class Residual:
    """An inverted bottleneck with a residual sum; ``squeeze``: width of squeeze-excite or 0."""

    hidden: int
    groups: int
    squeeze: int
    scaled: bool

    def build(self, values: Sequence[Value]) -> nn.Module:
        return ResidualBlock(values[0], self)

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        return ((values[0].fixed[0], *[True] * (values[0].rank - 1)),)


def residuals(draw: st.DrawFn, x: Value) -> Residual:
    """Depth-wise, grouped or plain inside."""
    hidden = draw(st.sampled_from([2, 4, 6, 9]))
    groups = draw(st.sampled_from([1, *divisors(hidden)]))
    return Residual(hidden, groups, draw(st.sampled_from([0, 0, 2, 3])), draw(st.booleans()))


class BranchBlock(nn.Module):
    """What ``Branches`` says."""

    def __init__(self, x: Value, kind: str, width: int) -> None:
        super().__init__()
        convolution, half = CONVOLUTIONS[x.rank], x.shape[0] // 2
        self.kind, self.cut = kind, half
        if kind == "dense":
            self.first = convolution(x.shape[0], width, 3, padding=1)
            self.second = convolution(x.shape[0] + width, width, 1)
        elif kind == "inception":
            self.first = convolution(x.shape[0], width, 1)
            self.second = convolution(x.shape[0], width + 1, 3, padding=1)
        elif kind == "ghost":
            self.first = convolution(x.shape[0], width, 1)
            self.second = convolution(width, width, 3, padding=1, groups=width)
        else:
            self.first = convolution(half, half, 3, padding=1)
            self.second = convolution(x.shape[0] - half, x.shape[0] - half, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "dense":
            x = torch.cat([x, F.relu(self.first(x))], 1)
            return torch.cat([x, self.second(x)], 1)
        if self.kind == "inception":
            return torch.cat([self.first(x), F.relu(self.second(x)), x], 1)
        if self.kind == "ghost":
            x = F.relu(self.first(x))
            return torch.cat([x, self.second(x)], 1)
        left, right = x.split([self.cut, x.shape[1] - self.cut], 1)
        if self.kind == "hierarchy" and 2 * self.cut == x.shape[1]:
            left = self.first(left)
            return torch.cat([left, self.second(right + left)], 1)
        return torch.cat([self.second(right), self.first(left)], 1)


@dataclass(frozen=True)
class Branches:
    """Branches that are concatenated: DenseNet, Inception, GhostNet, Res2Net, halves."""

    kind: Literal["dense", "inception", "ghost", "hierarchy", "halves"]
    width: int

    def build(self, values: Sequence[Value]) -> nn.Module:
        return BranchBlock(values[0], self.kind, self.width)

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        return ((False, *[True] * (values[0].rank - 1)),)


def branches(draw: st.DrawFn, x: Value) -> Branches:
    """Those of halves need some width."""
    kinds = ["dense", "inception", "ghost", *(["hierarchy", "halves"] if x.shape[0] > 3 else [])]
    return Branches(draw(st.sampled_from(kinds)), draw(st.integers(2, 5)))  # type: ignore[arg-type]


class FeedForward(nn.Module):
    """What ``Mlp`` says."""

    def __init__(self, x: Value, what: Mlp) -> None:
        super().__init__()
        width = x.shape[-1]
        self.kind, self.residual = what.kind, what.residual
        self.norm = nn.RMSNorm(width) if what.normed else nn.Identity()
        double = what.kind in ("packed gate", "interleaved gate")
        self.up = nn.Linear(width, what.hidden * (2 if double else 1))
        if what.kind == "gate":
            self.gate = nn.Linear(width, what.hidden, bias=False)
        if what.kind == "tied":
            self.shift = nn.Parameter(torch.zeros(width))
        else:
            self.down = nn.Linear(what.hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(self.norm(x))
        if self.kind == "tied":
            y = F.linear(F.relu(h), self.up.weight.t(), self.shift)
        elif self.kind == "packed gate":
            first, second = h.chunk(2, -1)
            y = self.down(F.silu(first) * second)
        elif self.kind == "interleaved gate":
            y = self.down(h[..., ::2] * h[..., 1::2].sigmoid())
        elif self.kind == "gate":
            y = self.down(F.gelu(self.gate(self.norm(x))) * h)
        else:
            y = self.down(F.gelu(h))
        return x + y if self.residual else y


@dataclass(frozen=True)
class Mlp:
    """Two linear layers over the last dimension, gated or with one weight for both."""

    kind: Literal["plain", "gate", "packed gate", "interleaved gate", "tied"]
    hidden: int
    normed: bool
    residual: bool

    def build(self, values: Sequence[Value]) -> nn.Module:
        return FeedForward(values[0], self)

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        held = values[0].fixed[-1] and self.residual
        return ((*values[0].fixed[:-1], held),)


def mlps(draw: st.DrawFn, x: Value) -> Mlp:
    """Any of them."""
    kind = draw(st.sampled_from(["plain", "gate", "packed gate", "interleaved gate", "tied"]))
    return Mlp(kind, draw(WIDTHS), draw(st.booleans()), draw(st.booleans()))  # type: ignore[arg-type]


class Mixing(nn.Module):
    """What ``Mixer`` says."""

    def __init__(self, x: Value, hidden: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.norm = nn.LayerNorm(x.shape[-1])
        self.up = nn.Linear(x.shape[dim - 1], hidden)
        self.down = nn.Linear(hidden, x.shape[dim - 1])

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x).transpose(self.dim, -1)
        return x + self.down(F.gelu(self.up(y))).transpose(self.dim, -1)


@dataclass(frozen=True)
class Mixer:
    """Two linear layers over another dimension than the last, as in MLP-Mixer."""

    hidden: int
    dim: int

    def build(self, values: Sequence[Value]) -> nn.Module:
        return Mixing(values[0], self.hidden, self.dim)

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        return (values[0].fixed,)


def mixers(draw: st.DrawFn, x: Value) -> Mixer:
    """Across any dimension but the last."""
    return Mixer(draw(WIDTHS), draw(st.integers(1, x.rank - 1)))


@dataclass(frozen=True)
class ToTokens:
    """An image [channels, height, width] as tokens [height * width, channels]."""

    def build(self, values: Sequence[Value]) -> nn.Module:
        return Function(lambda x: x.flatten(2).transpose(1, 2))

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        channel, *image = values[0].fixed
        return ((all(image), channel),)


BLOCKS = (
    Option(lambda x: x.rank in (2, 3) and all(x.fixed[1:]) and not x.vocabulary, residuals),
    Option(rank_in(2, 3), branches),
    Option(rank_in(1, 2, 3), mlps),
    Option(rank_in(2, 3), mixers),
    Option(rank_in(3), lambda draw, x: ToTokens()),
)

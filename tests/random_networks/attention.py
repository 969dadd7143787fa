"""Attention: by hand in many ways, and torch's own module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from .values import Fixed, Option, Value, divisors


@dataclass(frozen=True)
class Attention:
    """Attention over the first dimension of tokens [length, width].

    keys:    heads of keys and values, each for ``heads / keys`` heads of queries.
    width:   of queries and keys; ``values`` of values.
    packed:  one layer for all three: "no", "blocks" (all queries first) or "heads" (head by head).
    scale:   1 / sqrt(width): left to torch, computed by the constructor or forward, or none.
    """

    heads: int
    keys: int
    width: int
    values: int
    packed: Literal["no", "blocks", "heads", "stacked"]
    style: Literal["torch", "matmul", "einsum"]
    scale: Literal["torch", "constructor", "forward", "no"]
    norm: Literal["no", "layer", "rms"]
    rotary: bool
    mask: Literal["no", "causal", "bias"]
    bias: bool
    out: int

    def build(self, values: Sequence[Value]) -> nn.Module:
        return HandAttention(self, values)

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        return ((values[0].fixed[0], False),)


class HandAttention(nn.Module):
    """One to one what ``Attention`` says; queries of x, keys and values of ``memory`` or x."""

    def __init__(self, what: Attention, values: Sequence[Value]) -> None:
        super().__init__()
        self.what = what
        (length, wide), memory = values[0].shape, values[-1].shape
        self.num_heads, self.key_heads = what.heads, what.keys
        self.head_dim, self.value_dim = what.width, what.values
        self.scale = what.width**-0.5
        sizes = (what.heads * what.width, what.keys * what.width, what.keys * what.values)
        if what.packed == "no":
            self.q = nn.Linear(wide, sizes[0], bias=what.bias)
            self.k = nn.Linear(memory[1], sizes[1], bias=what.bias)
            self.v = nn.Linear(memory[1], sizes[2], bias=what.bias)
        else:
            self.qkv = nn.Linear(wide, sum(sizes), bias=what.bias)
        if what.norm != "no":
            kind = nn.LayerNorm if what.norm == "layer" else nn.RMSNorm
            self.q_norm, self.k_norm = kind(what.width), kind(what.width)
        if what.rotary:
            angle = torch.outer(torch.arange(max(length, memory[0])), torch.rand(what.width // 2))
            self.register_buffer("cos", torch.cat([angle, angle], -1).cos().double())
            self.register_buffer("sin", torch.cat([angle, angle], -1).sin().double())
        if what.mask == "bias":
            self.position = nn.Parameter(torch.zeros(what.heads, length, memory[0]))
        self.proj = nn.Linear(what.heads * what.values, what.out)

    def project(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [batch, heads, length, width]."""
        batch, length, _ = x.shape
        if self.what.packed == "stacked":  # as timm
            packed = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.head_dim)
            q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
            return q, k, v
        if self.what.packed == "heads":  # as GPT-NeoX
            packed = self.qkv(x).view(batch, length, self.num_heads, 3 * self.head_dim)
            q, k, v = packed.transpose(1, 2).chunk(3, dim=-1)
            return q, k, v
        if self.what.packed == "blocks":
            key, value = self.key_heads * self.head_dim, self.key_heads * self.value_dim
            q, k, v = self.qkv(x).split([self.num_heads * self.head_dim, key, value], dim=-1)
        else:
            q, k, v = self.q(x), self.k(memory), self.v(memory)
        q = q.view(batch, length, self.num_heads, self.head_dim).transpose(1, 2)
        k = k.unflatten(-1, (self.key_heads, -1)).transpose(1, 2)
        v = v.view(batch, -1, self.key_heads, self.value_dim).transpose(1, 2)
        return q, k, v

    def turned(self, x: Tensor) -> Tensor:
        """Rotary positions."""
        cos, sin = self.get_buffer("cos")[: x.shape[2]], self.get_buffer("sin")[: x.shape[2]]
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-second, first], dim=-1) * sin

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        what = self.what
        q, k, v = self.project(x, x if memory is None else memory)
        if what.norm != "no":
            q, k = self.q_norm(q), self.k_norm(k)
        if what.rotary:
            q, k = self.turned(q), self.turned(k)
        if what.keys < what.heads:
            k = k.repeat_interleave(what.heads // what.keys, dim=1)
            v = v[:, :, None].expand(-1, -1, what.heads // what.keys, -1, -1).flatten(1, 2)
        mask = self.position if what.mask == "bias" else None
        if what.style == "torch":
            scale = {"torch": None, "constructor": self.scale, "no": 1.0}.get(
                what.scale, q.shape[-1] ** -0.5
            )
            y = F.scaled_dot_product_attention(
                q, k, v, mask, is_causal=what.mask == "causal", scale=scale
            )
        else:
            y = self.by_hand(q, k, v, mask)
        return self.proj(y.transpose(1, 2).flatten(2))

    def by_hand(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Softmax of scaled products, with matrix products or einsum."""
        einsum = self.what.style == "einsum"
        scores = torch.einsum("bhld,bhsd->bhls", q, k) if einsum else q @ k.transpose(-1, -2)
        if self.what.scale == "constructor":
            scores = scores * self.scale
        elif self.what.scale in ("forward", "torch"):
            scores = scores / q.shape[-1] ** 0.5
        if mask is not None:
            scores = scores + mask
        if self.what.mask == "causal":
            later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, -1e9)
        weights = scores.softmax(-1)
        return torch.einsum("bhls,bhsd->bhld", weights, v) if einsum else weights @ v


def attentions(draw: st.DrawFn, x: Value, memory: Value | None = None) -> Attention:
    """Self-attention, or cross-attention to ``memory``."""
    heads = draw(st.integers(1, 3))
    width = draw(st.integers(2, 4))
    packed = "no"
    if memory is None:
        packed = draw(st.sampled_from(["no", "blocks", "heads", "stacked"]))
    whole = packed in ("heads", "stacked")
    rotary = width % 2 == 0 and draw(st.booleans())
    masks = ["no", "no", "bias"] if memory is not None else ["no", "causal", "bias"]
    return Attention(
        heads=heads,
        keys=heads if whole else draw(st.sampled_from(divisors(heads)[::-1])),
        width=width,
        values=width if whole else draw(st.sampled_from([width, 3])),
        packed=packed,  # type: ignore[arg-type]
        style=draw(st.sampled_from(["torch", "matmul", "einsum"])),  # type: ignore[arg-type]
        scale=draw(st.sampled_from(["torch", "constructor", "forward", "no"])),  # type: ignore[arg-type]
        norm=draw(st.sampled_from(["no", "no", "layer", "rms"])),  # type: ignore[arg-type]
        rotary=rotary,
        mask=draw(st.sampled_from(masks)),  # type: ignore[arg-type]
        bias=draw(st.booleans()),
        out=draw(st.sampled_from([x.shape[1], x.shape[1], 5])),
    )


class TorchAttention(nn.Module):
    """nn.MultiheadAttention, of which the answer alone goes on."""

    def __init__(self, wide: int, memory: int, heads: int, bias: bool, averaged: bool) -> None:
        super().__init__()
        self.averaged = averaged
        self.attention = nn.MultiheadAttention(
            wide, heads, bias=bias, kdim=memory, vdim=memory, batch_first=True
        )

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        memory = x if memory is None else memory
        return self.attention(x, memory, memory, need_weights=self.averaged)[0]


@dataclass(frozen=True)
class MultiheadAttention:
    """torch's own module; ``averaged``: with weights that nobody reads."""

    heads: int
    bias: bool
    averaged: bool

    def build(self, values: Sequence[Value]) -> nn.Module:
        wide, memory = values[0].shape[1], values[-1].shape[1]
        return TorchAttention(wide, memory, self.heads, self.bias, self.averaged)

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        return ((values[0].fixed[0], False),)


def multihead_attentions(draw: st.DrawFn, x: Value) -> MultiheadAttention:
    """With any number of heads that divides the width."""
    heads = draw(st.sampled_from(divisors(x.shape[1])))
    return MultiheadAttention(heads, draw(st.booleans()), draw(st.booleans()))


@dataclass(frozen=True)
class EncoderLayer:
    """nn.TransformerEncoderLayer."""

    heads: int
    hidden: int
    first: bool
    activation: Literal["relu", "gelu"]

    def build(self, values: Sequence[Value]) -> nn.Module:
        return nn.TransformerEncoderLayer(
            values[0].shape[1],
            self.heads,
            self.hidden,
            activation=self.activation,
            norm_first=self.first,
            batch_first=True,
        )

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        return (values[0].fixed,)


def encoder_layers(draw: st.DrawFn, x: Value) -> EncoderLayer:
    """With any number of heads that divides the width, norms before or after."""
    heads = draw(st.sampled_from(divisors(x.shape[1])))
    activation = draw(st.sampled_from(["relu", "gelu"]))
    return EncoderLayer(heads, draw(st.integers(2, 8)), draw(st.booleans()), activation)  # type: ignore[arg-type]


def is_text(x: Value) -> bool:
    """Tokens of which none can leave: the softmax runs over them."""
    return x.rank == 2 and x.fixed[0] and not x.vocabulary


ATTENTION = (
    Option(is_text, attentions),
    Option(is_text, attentions),
    Option(is_text, multihead_attentions),
    Option(is_text, encoder_layers),
)

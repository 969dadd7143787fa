"""Attention by hand: heads, query-key dimensions and value dimensions cross."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, cols, floats, norm, rows, two_sequences


class PackedAttention(nn.Module):
    """One projection for queries, keys and values, laid out (3, heads, dim)."""

    def __init__(self, width: int, heads: int, dim: int) -> None:
        super().__init__()
        self.heads, self.dim = heads, dim
        self.qkv = nn.Linear(width, 3 * heads * dim)
        self.proj = nn.Linear(heads * dim, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(batch, length, self.heads * self.dim))


class PackedBlock(nn.Module):
    def __init__(self, dim: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 10)
        self.norm = nn.LayerNorm(10)
        self.attention = PackedAttention(10, 3, dim)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + self.attention(self.norm(x)))


class SeparateAttention(nn.Module):
    """Written by hand, with value dimensions of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 9)
        self.q = nn.Linear(9, 2 * 5)
        self.k = nn.Linear(9, 2 * 5, bias=False)
        self.v = nn.Linear(9, 2 * 6)
        self.o = nn.Linear(2 * 6, 7)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        batch, length, _ = x.shape
        q = self.q(x).view(batch, length, 2, -1).transpose(1, 2)
        k = self.k(x).view(batch, length, 2, -1).permute(0, 2, 3, 1)
        v = self.v(x).view(batch, length, 2, -1).transpose(1, 2)
        y = torch.softmax(q @ k / math.sqrt(5), dim=-1) @ v
        return self.head(F.relu(self.o(y.transpose(1, 2).flatten(2))))


class SingleHead(nn.Module):
    """No view at all, and the scale is the implicit one of the operator."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(5, 6)
        self.k = nn.Linear(5, 6)
        self.v = nn.Linear(5, 8)
        self.o = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x)))


class ShapeScaled(nn.Module):
    """The scale is read from a shape, so a class with smaller layers would change it."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(5, 7)
        self.k = nn.Linear(5, 7)
        self.v = nn.Linear(5, 9)
        self.o = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        return self.o(F.softmax(torch.bmm(q, k.mT) * q.shape[-1] ** -0.5, -1) @ v)


class PackedKeyValue(nn.Module):
    """Cross attention by hand: keys and values share one projection, cut in two."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q = nn.Linear(5, 3 * 4, bias=False)
        self.to_kv = nn.Linear(7, 2 * 3 * 4, bias=False)
        self.to_out = nn.Linear(3 * 4, 4)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        k, v = self.to_kv(memory).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (3, 4)).transpose(1, 2) for t in (self.to_q(x), k, v))
        y = F.scaled_dot_product_attention(q, k, v, scale=0.5)
        return self.to_out(y.transpose(1, 2).reshape(x.shape[0], x.shape[1], 12))


def packed_block(dim: int) -> tuple[Expected, ...]:
    """Residual width, heads, and dimensions: (3, heads, dim) is a rectangle, so that a dimension
    leaves query, key and value alike."""
    return (
        Expected(
            10,
            rows("embed")
            | norm("norm")
            | cols("attention.qkv")
            | rows("attention.proj")
            | cols("head"),
            exact=False,
        ),
        Expected(3, rows("attention.qkv", 3 * dim) | cols("attention.proj", dim)),
        Expected(dim, rows("attention.qkv", 9) | cols("attention.proj", 3)),
    )


ENTRIES = (
    Entry(
        "square_heads",  # three heads of width three: six units, yet two kinds
        lambda: PackedBlock(3),
        floats(6, 5),
        packed_block(3),
        module_surgery=False,
    ),
    Entry(
        "packed_attention",
        PackedBlock,
        floats(6, 5),
        packed_block(4),
        module_surgery=False,
    ),
    Entry(
        "separate_attention",
        SeparateAttention,
        floats(6, 4),
        (
            Expected(9, rows("embed") | cols("q") | cols("k") | cols("v")),
            Expected(2, rows("q", 5) | rows("k", 5, bias=False) | rows("v", 6) | cols("o", 6)),
            Expected(5, rows("q", 2) | rows("k", 2, bias=False)),
            Expected(6, rows("v", 2) | cols("o", 2)),
            Expected(7, rows("o") | cols("head")),
        ),
        module_surgery=False,
    ),
    Entry(
        "single_head",
        SingleHead,
        floats(6, 5),
        (Expected(6, rows("q") | rows("k")), Expected(8, rows("v") | cols("o"))),
    ),
    Entry(
        "shape_scaled",
        ShapeScaled,
        floats(6, 5),
        (Expected(7, rows("q") | rows("k")), Expected(9, rows("v") | cols("o"))),
        module_surgery=False,
    ),
    Entry(
        "packed_key_value",
        PackedKeyValue,
        two_sequences,
        (
            Expected(
                3, rows("to_q", 4, bias=False) | rows("to_kv", 8, bias=False) | cols("to_out", 4)
            ),
            Expected(4, rows("to_q", 3, bias=False) | rows("to_kv", 3, bias=False)),
            Expected(4, rows("to_kv", 3, bias=False) | cols("to_out", 3)),
        ),
        module_surgery=False,
    ),
)

"""A small language model: rotary positions, shared key-value heads, gates, a tied embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .norms import RmsNorm, rms_reference
from .table import Entry, Expected, cols, rows, tokens

WIDTH, HEADS, GROUPS, DIM = 16, 4, 2, 6


class Rotary(nn.Module):
    inverse: Tensor

    def __init__(self) -> None:
        super().__init__()
        inverse = 1.0 / (100.0 ** (torch.arange(0, DIM, 2).float() / DIM))
        self.register_buffer("inverse", inverse, persistent=False)

    def forward(self, length: int) -> tuple[Tensor, Tensor]:
        place = torch.arange(length, device=self.inverse.device).to(self.inverse.dtype)
        angle = torch.outer(place, self.inverse)
        angle = torch.cat([angle, angle], dim=-1)
        return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns every pair (d, d + half) by its angle."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(WIDTH, HEADS * DIM, bias=False)
        self.k = nn.Linear(WIDTH, GROUPS * DIM, bias=False)
        self.v = nn.Linear(WIDTH, GROUPS * DIM, bias=False)
        self.o = nn.Linear(HEADS * DIM, WIDTH, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q = self.q(x).view(batch, length, HEADS, DIM).transpose(1, 2)
        k = self.k(x).view(batch, length, GROUPS, DIM).transpose(1, 2)
        v = self.v(x).view(batch, length, GROUPS, DIM).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        repeat = HEADS // GROUPS
        k = k[:, :, None].expand(batch, GROUPS, repeat, length, DIM)
        k = k.reshape(batch, HEADS, length, DIM)
        v = v.repeat_interleave(repeat, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(batch, length, -1))


class LanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(13, WIDTH)
        self.rotary = Rotary()
        self.norm1 = RmsNorm(WIDTH)
        self.attention = Attention()
        self.norm2 = RmsNorm(WIDTH)
        self.gate = nn.Linear(WIDTH, 20, bias=False)
        self.up = nn.Linear(WIDTH, 20, bias=False)
        self.down = nn.Linear(20, WIDTH, bias=False)
        self.norm3 = RmsNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 13, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.attention(self.norm1(x), *self.rotary(x.shape[1]))
        y = self.norm2(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return self.head(self.norm3(x))


ENTRIES = (
    Entry(
        "language_model",
        LanguageModel,
        tokens(5, 13),
        (
            Expected(
                WIDTH,
                {
                    "embed.weight:1": 1,  # and the tied head
                    "norm1.weight:0": 1,
                    "norm2.weight:0": 1,
                    "norm3.weight:0": 1,
                }
                | cols("attention.q")
                | cols("attention.k")
                | cols("attention.v")
                | rows("attention.o", bias=False)
                | cols("gate")
                | cols("up")
                | rows("down", bias=False),
                exact=False,
            ),
            Expected(20, rows("gate", bias=False) | rows("up", bias=False) | cols("down")),
            Expected(  # key-value heads with their two query heads each
                2,
                rows("attention.q", 12, bias=False)
                | rows("attention.k", 6, bias=False)
                | rows("attention.v", 6, bias=False)
                | cols("attention.o", 12),
            ),
            Expected(  # rotary pairs
                3,
                rows("attention.q", 8, bias=False)
                | rows("attention.k", 4, bias=False)
                | {"rotary.inverse:0": 1},
            ),
            Expected(6, rows("attention.v", 2, bias=False) | cols("attention.o", 4)),
        ),
        module_surgery=False,
        adapted_reference=rms_reference,
    ),
)

"""Attention with shared heads, biases by distance, feature maps, learned tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, Slices, cols, floats, rows, survivors


class GroupedQueries(nn.Module):
    """Four query heads share two key-value heads, seen as (2, 2) and broadcast."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(5, 2 * 3 * 4)
        self.k = nn.Linear(5, 2 * 4)
        self.v = nn.Linear(5, 2 * 6)
        self.o = nn.Linear(2 * 3 * 6, 4)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q = self.q(x).view(batch, length, 2, 3, 4).permute(0, 2, 3, 1, 4)
        k = self.k(x).view(batch, length, 2, 1, 4).permute(0, 2, 3, 4, 1)
        v = self.v(x).view(batch, length, 2, 1, 6).permute(0, 2, 3, 1, 4)
        y = torch.softmax(q @ k * 0.5, -1) @ v
        return self.o(y.permute(0, 3, 1, 2, 4).reshape(batch, length, 36))


class JoinedBiases(nn.Module):
    """Packed attention whose keys have no bias: it is put together for every call (BEiT)."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 2
        self.qkv = nn.Linear(6, 3 * self.heads * 4, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(8))
        self.register_buffer("k_bias", torch.zeros(8), persistent=False)
        self.o = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        bias = torch.cat((self.q_bias, self.get_buffer("k_bias"), self.v_bias))
        packed = F.linear(x, self.qkv.weight, bias).reshape(batch, length, 3, self.heads, -1)
        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.o(y.flatten(2))


class Alibi(nn.Module):
    """A slope per head, computed on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(5, 4 * 3)
        self.k = nn.Linear(5, 4 * 3)
        self.v = nn.Linear(5, 4 * 3)
        self.o = nn.Linear(4 * 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (f(x).view(batch, length, 4, 3).transpose(1, 2) for f in (self.q, self.k, self.v))
        place = torch.arange(length, device=x.device)
        slope = 2.0 ** -(torch.arange(4, device=x.device) + 1)
        bias = (slope[:, None, None] * -(place[:, None] - place[None, :]).abs()).to(x.dtype)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.o(y.transpose(1, 2).flatten(2))


class LinearAttention(nn.Module):
    """elu + 1 is one where its input is zero: such a dimension still counts in the dense net."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(5, 2 * 4)
        self.k = nn.Linear(5, 2 * 4)
        self.v = nn.Linear(5, 2 * 6)
        self.o = nn.Linear(2 * 6, 3)

    def feature(self, x: Tensor) -> Tensor:
        return F.elu(x) + 1

    def forward(self, x: Tensor) -> Tensor:
        q = self.feature(self.q(x)).unflatten(-1, (2, -1))
        k = self.feature(self.k(x)).unflatten(-1, (2, -1))
        v = self.v(x).unflatten(-1, (2, -1))
        state = torch.einsum("bthd,bthe->bhde", k, v)
        total = torch.einsum("bthd,bhd->bth", q, k.sum(1))
        y = torch.einsum("bthd,bhde->bthe", q, state) / (total.unsqueeze(-1) + 1e-3)
        return self.o(y.flatten(2))


def linear_attention_reference(model: nn.Module, kept: Slices) -> nn.Module:
    assert isinstance(model, LinearAttention)
    alive = torch.zeros(8, dtype=torch.float64)
    alive[survivors(kept, "q.weight", 0, 8)] = 1
    model.feature = lambda x: (F.elu(x) + 1) * alive  # type: ignore[method-assign]
    return model


class PromptTokens(nn.Module):
    """Five learned tokens are put before the input's and cut off again behind the block."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.randn(1, 5, 8))
        self.embed = nn.Linear(4, 8)
        self.q = nn.Linear(8, 6)
        self.k = nn.Linear(8, 6)
        self.v = nn.Linear(8, 7)
        self.o = nn.Linear(7, 8)
        self.head = nn.Linear(8, 3)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.prompts.expand(x.shape[0], -1, -1), self.embed(x)], dim=1)
        x = x + self.o(self.attend(self.q(x), self.k(x), self.v(x)))
        return self.head(x[:, self.prompts.shape[1] :])


def prompts_reference(model: nn.Module, kept: Slices) -> nn.Module:
    """Nobody looks at a removed prompt."""
    assert isinstance(model, PromptTokens)
    absent = torch.ones(5, dtype=torch.bool)
    absent[survivors(kept, "prompts", 1, 5)] = False

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen = ~torch.cat([absent, torch.zeros(k.shape[1] - 5, dtype=torch.bool)])
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen.expand(q.shape[1], -1))

    model.attend = attend  # type: ignore[method-assign]
    return model


def joined(k: int) -> dict[str, int]:
    """The biases of queries, keys and values."""
    return {"q_bias:0": k, "k_bias:0": k, "v_bias:0": k}


ENTRIES = (
    Entry(
        "grouped_queries",
        GroupedQueries,
        floats(6, 5),
        (
            Expected(2, rows("q", 12) | rows("k", 4) | rows("v", 6) | cols("o", 18)),
            Expected(3, rows("q", 8) | cols("o", 12)),  # the place of a query head in its group
            Expected(4, rows("q", 6) | rows("k", 2)),
            Expected(6, rows("v", 2) | cols("o", 6)),
        ),
        module_surgery=False,
    ),
    Entry(
        "joined_biases",
        JoinedBiases,
        floats(5, 6),
        (
            Expected(2, rows("qkv", 12, bias=False) | joined(4) | cols("o", 4)),
            Expected(4, rows("qkv", 6, bias=False) | joined(2) | cols("o", 2)),
        ),
    ),
    Entry(
        "alibi",
        Alibi,
        floats(6, 5),
        (
            Expected(4, rows("q", 3) | rows("k", 3) | rows("v", 3) | cols("o", 3)),
            Expected(3, rows("q", 4) | rows("k", 4)),
            Expected(3, rows("v", 4) | cols("o", 4)),
        ),
        module_surgery=False,
    ),
    Entry(
        "linear_attention",
        LinearAttention,
        floats(6, 5),
        (
            Expected(2, rows("q", 4) | rows("k", 4) | rows("v", 6) | cols("o", 6)),
            Expected(4, rows("q", 2) | rows("k", 2), exact=False),
            Expected(6, rows("v", 2) | cols("o", 2)),
        ),
        module_surgery=False,
        adapted_reference=linear_attention_reference,
    ),
    Entry(
        "prompt_tokens",
        PromptTokens,
        floats(6, 4),
        (
            Expected(
                8,
                {"prompts:2": 1}
                | rows("embed")
                | cols("q")
                | cols("k")
                | cols("v")
                | rows("o")
                | cols("head"),
            ),
            Expected(6, rows("q") | rows("k")),
            Expected(7, rows("v") | cols("o")),
            Expected(5, {"prompts:1": 1}, exact=False),
        ),
        adapted_reference=prompts_reference,
    ),
)

"""Attention layers that come with torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, cols, floats, norm, rows, two_sequences


class MultiheadBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 12)
        self.norm = nn.LayerNorm(12)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        y = self.norm(x)
        return self.head(x + self.attention(y, y, y, need_weights=False)[0])


class EncoderLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 12)
        self.layer = nn.TransformerEncoderLayer(12, 2, 20, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x)))


class CrossAttention(nn.Module):
    """Keys and values come from a second input of another width; weights are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 12)
        self.attention = nn.MultiheadAttention(12, 3, kdim=7, vdim=7, batch_first=True)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        x = self.embed(x)
        y, _ = self.attention(x, memory, memory)
        return self.head(F.relu(x + y))


class Transformer(nn.Module):
    """Encoder and decoder: the cross-attention packs the widths of both into one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.source = nn.Linear(5, 8)
        self.target = nn.Linear(6, 8)
        self.body = nn.Transformer(8, 2, 1, 1, 10, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.head(self.body(self.source(source), self.target(target)))


class CausalEncoder(nn.Module):
    """The mask is a tensor, and torch compares its values with a causal one's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 12)
        layer = nn.TransformerEncoderLayer(12, 2, 20, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
        return self.head(self.body(self.embed(x), mask=mask))


def packed(layer: str, heads: int, dim: int) -> tuple[Expected, Expected]:
    """Heads, and dimensions of them all, of an attention layer with packed projections."""
    weight, bias = f"{layer}.in_proj_weight:0", f"{layer}.in_proj_bias:0"
    return (
        Expected(heads, {weight: 3 * dim, bias: 3 * dim} | cols(f"{layer}.out_proj", dim)),
        Expected(dim, {weight: 3 * heads, bias: 3 * heads} | cols(f"{layer}.out_proj", heads)),
    )


ENCODER, DECODER = "body.encoder.layers.0", "body.decoder.layers.0"
LAYER = "body.layers.0"

ENTRIES = (
    Entry(
        "transformer",
        Transformer,
        lambda: (torch.randn(2, 4, 5), torch.randn(2, 3, 6)),
        (
            Expected(
                8,
                rows("source")
                | rows("target")
                | {f"{ENCODER}.self_attn.in_proj_weight:1": 1}
                | rows(f"{ENCODER}.self_attn.out_proj")
                | norm(f"{ENCODER}.norm1")
                | cols(f"{ENCODER}.linear1")
                | rows(f"{ENCODER}.linear2")
                | norm(f"{ENCODER}.norm2")
                | norm("body.encoder.norm")
                | {f"{DECODER}.self_attn.in_proj_weight:1": 1}
                | rows(f"{DECODER}.self_attn.out_proj")
                | norm(f"{DECODER}.norm1")
                | {f"{DECODER}.multihead_attn.in_proj_weight:1": 1}
                | rows(f"{DECODER}.multihead_attn.out_proj")
                | norm(f"{DECODER}.norm2")
                | cols(f"{DECODER}.linear1")
                | rows(f"{DECODER}.linear2")
                | norm(f"{DECODER}.norm3")
                | norm("body.decoder.norm")
                | cols("head"),
                exact=False,
            ),
            Expected(10, rows(f"{ENCODER}.linear1") | cols(f"{ENCODER}.linear2")),
            Expected(10, rows(f"{DECODER}.linear1") | cols(f"{DECODER}.linear2")),
            *packed(f"{ENCODER}.self_attn", 2, 4),
            *packed(f"{DECODER}.self_attn", 2, 4),
            *packed(f"{DECODER}.multihead_attn", 2, 4),
        ),
        module_surgery=False,
    ),
    Entry(
        "multihead_attention",
        MultiheadBlock,
        floats(6, 5),
        (
            Expected(
                12,
                rows("embed")
                | norm("norm")
                | {"attention.in_proj_weight:1": 1}
                | rows("attention.out_proj")
                | cols("head"),
                exact=False,
            ),
            Expected(
                3,
                {"attention.in_proj_weight:0": 12, "attention.in_proj_bias:0": 12}
                | cols("attention.out_proj", 4),
            ),
            # (3, heads * dim) is a rectangle: a dimension leaves query, key and value alike
            Expected(
                4,
                {"attention.in_proj_weight:0": 9, "attention.in_proj_bias:0": 9}
                | cols("attention.out_proj", 3),
            ),
        ),
        module_surgery=False,
    ),
    Entry(
        "transformer_encoder_layer",
        EncoderLayer,
        floats(5, 5),
        (
            Expected(
                12,
                rows("embed")
                | {"layer.self_attn.in_proj_weight:1": 1}
                | rows("layer.self_attn.out_proj")
                | norm("layer.norm1")
                | cols("layer.linear1")
                | rows("layer.linear2")
                | norm("layer.norm2")
                | cols("head"),
                exact=False,
            ),
            Expected(20, rows("layer.linear1") | cols("layer.linear2")),
            Expected(
                2,
                {"layer.self_attn.in_proj_weight:0": 18, "layer.self_attn.in_proj_bias:0": 18}
                | cols("layer.self_attn.out_proj", 6),
            ),
            Expected(
                6,
                {"layer.self_attn.in_proj_weight:0": 6, "layer.self_attn.in_proj_bias:0": 6}
                | cols("layer.self_attn.out_proj", 2),
            ),
        ),
        module_surgery=False,
    ),
    Entry(
        "causal_encoder",
        CausalEncoder,
        floats(5, 5),
        (
            Expected(
                12,
                rows("embed")
                | {f"{LAYER}.self_attn.in_proj_weight:1": 1}
                | rows(f"{LAYER}.self_attn.out_proj")
                | norm(f"{LAYER}.norm1")
                | cols(f"{LAYER}.linear1")
                | rows(f"{LAYER}.linear2")
                | norm(f"{LAYER}.norm2")
                | cols("head"),
                exact=False,
            ),
            Expected(20, rows(f"{LAYER}.linear1") | cols(f"{LAYER}.linear2")),
            *packed(f"{LAYER}.self_attn", 2, 6),
        ),
        module_surgery=False,
    ),
    Entry(
        "cross_attention",
        CrossAttention,
        two_sequences,
        (
            Expected(
                12,
                rows("embed")
                | {"attention.q_proj_weight:1": 1}
                | rows("attention.out_proj")
                | cols("head"),
            ),
            Expected(
                3,
                {
                    "attention.q_proj_weight:0": 4,
                    "attention.k_proj_weight:0": 4,
                    "attention.v_proj_weight:0": 4,
                    "attention.in_proj_bias:0": 12,
                }
                | cols("attention.out_proj", 4),
            ),
            Expected(
                4,
                {
                    "attention.q_proj_weight:0": 3,
                    "attention.k_proj_weight:0": 3,
                    "attention.in_proj_bias:0": 6,
                },
            ),
            Expected(
                4,
                {"attention.v_proj_weight:0": 3, "attention.in_proj_bias:0": 3}
                | cols("attention.out_proj", 3),
            ),
        ),
        module_surgery=False,
    ),
)

"""Scaled dot-product attention: three ``same``; heads and head dimensions come from the views."""

from __future__ import annotations

import numpy as np
import torch
from torch import fx

from secateur.structure.tracer import Tracer, rule
from secateur.structure.values import Value

aten = torch.ops.aten


@rule(aten.scaled_dot_product_attention)
def attention(
    tracer: Tracer,
    node: fx.Node,
    query: Value,
    key: Value,
    value: Value,
    mask: Value | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """query [..., L, E], key [..., S, E], value [..., S, Ev] -> [..., L, Ev]."""
    tracer.contract(node, query[-1], key[-1])
    tracer.axes.same(key[-2], value[-2])
    if is_causal:
        tracer.pin(query[-2], "attention is causal: positions matter")
        tracer.pin(key[-2], "attention is causal: positions matter")
    tracer.adapt(node, key[-2])
    lead = []
    for place in range(len(query) - 2):
        q, k, v = query[place], key[place], value[place]
        if enable_gqa and len(k) != len(q):
            outer, inner = tracer.axes.split(q, [len(k), len(q) // len(k)])
            tracer.pin(inner, "a query of a group of queries")
            tracer.axes.same(outer, k)
            tracer.axes.same(k, v)
            lead.append(np.where(np.repeat(v, len(q) // len(v)) > 0, np.abs(q), -np.abs(q)))
            continue
        tied = np.abs(tracer.tie([q, k, v]))
        zero = v > 0 if len(v) == len(tied) else np.zeros(len(tied), bool)
        lead.append(np.where(zero, tied, -tied))
    if mask is not None:
        for ids, other in zip(reversed([*lead, query[-2], key[-2]]), reversed(mask), strict=False):
            if len(ids) == len(other):
                tracer.axes.same(ids, other)
    result = Value([*lead, -np.abs(query[-2]), value[-1]])
    tracer.work(node, 1, [*lead, query[-2], key[-2], query[-1]])
    tracer.work(node, 1, [*lead, query[-2], key[-2], value[-1]])
    return result

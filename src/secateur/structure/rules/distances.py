"""Distances between the rows of two matrices, and the cross product."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.structure.tracer import Tracer, rule
from secateur.structure.values import Value

aten = torch.ops.aten


@rule(aten.cdist, aten._cdist_forward, aten._euclidean_dist)
def cdist(tracer: Tracer, node: fx.Node, a: Value, b: Value, *args: Any, **kwargs: Any) -> Value:
    """a [..., P, M], b [..., R, M] -> [..., P, R]: differences are summed over M."""
    tracer.axes.same(a[-1], b[-1])
    if (a[-1] < 0).any() or (b[-1] < 0).any():
        tracer.adapt(node, a[-1])
    lead = []
    for place in range(max(len(a), len(b)) - 2):
        vectors = []
        for operand in (a, b):
            d = place - (max(len(a), len(b)) - len(operand))
            vectors.append(operand[d] if d >= 0 else np.zeros(1, np.int64))
        lead.append(-np.abs(tracer.tie(vectors)))
    return Value([*lead, -np.abs(a[-2]), -np.abs(b[-2])])


@rule(aten.linalg_cross)
def cross(tracer: Tracer, node: fx.Node, a: Value, b: Value, *, dim: int = -1) -> Value:
    """The three coordinates stay; else a product, zero where one of both is."""
    result = []
    for d, (x, y) in enumerate(zip(a, b, strict=True)):
        if d == dim % len(a):
            tracer.pin(x, "it holds coordinates")
            tracer.pin(y, "it holds coordinates")
        tied = np.abs(tracer.tie([x, y]))
        zero = np.any([v > 0 for v in (x, y) if len(v) == len(tied)], axis=0)
        result.append(np.where(zero, tied, -tied))
    return Value(result)

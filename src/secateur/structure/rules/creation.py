"""Tensors made in forward and then written to; untouched constants need no rule."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from secateur.structure.tracer import Tracer, rule
from secateur.structure.values import Value, result_shape

aten = torch.ops.aten


@rule(
    aten.zeros, aten.ones, aten.full, aten.empty, aten.rand, aten.randn,
    aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty,
)  # fmt: skip
def created(tracer: Tracer, node: fx.Node, *args: Any, **kwargs: Any) -> Value:
    """A new tensor of literal sizes: fresh indices, zero only where it is made of zeros."""
    zero = node.target in (aten.zeros.default, aten.new_zeros.default)
    sign = 1 if zero else -1
    result = Value(sign * tracer.axes.fresh(size) for size in result_shape(node))
    for place, ids in enumerate(result):
        tracer.count(node, "size", ids, place)
    return result


@rule(aten.slice_scatter)
def slice_scatter(
    tracer: Tracer,
    node: fx.Node,
    x: Value,
    source: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    """x with source written to x[..., start:end:step]; the written indices are the source's."""
    if x[dim % len(x)].any():
        return tracer.hold(node, "slice_scatter on a dimension that could leave")
    for d, (a, b) in enumerate(zip(x, source, strict=True)):
        if d != dim % len(x):
            tracer.axes.same(a, b)
    return Value(-abs(ids) for ids in x)

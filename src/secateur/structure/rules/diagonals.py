"""Diagonals and triangles of the matrices in two dimensions."""

from __future__ import annotations

import numpy as np
import torch
from torch import fx

from secateur.structure.tracer import Tracer, rule
from secateur.structure.values import Value, result_shape

aten = torch.ops.aten


@rule(aten.diagonal)
def diagonal(
    tracer: Tracer, node: fx.Node, x: Value, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Value:
    """x[..., i, i]: rows and columns leave together, and stand last."""
    rows, columns = x[dim1 % len(x)], x[dim2 % len(x)]
    rest = [ids for d, ids in enumerate(x) if d not in (dim1 % len(x), dim2 % len(x))]
    if offset or len(rows) != len(columns):
        tracer.pin(rows, "a diagonal beside the main one runs through it")
        tracer.pin(columns, "a diagonal beside the main one runs through it")
        return Value([*rest, np.zeros(result_shape(node)[-1], np.int64)])
    tracer.axes.same(rows, columns)
    zero = (rows > 0) | (columns > 0)
    return Value([*rest, np.where(zero, np.abs(rows), -np.abs(rows))])


@rule(aten.diag_embed)
def diag_embed(
    tracer: Tracer, node: fx.Node, x: Value, offset: int = 0, dim1: int = -2, dim2: int = -1
) -> Value:
    """The last dimension on the diagonal of a matrix of zeros."""
    shape = result_shape(node)
    last = x[-1]
    if offset:
        tracer.pin(last, "it is put beside the main diagonal")
        last = np.zeros(shape[dim1], np.int64)
    result = list(x[:-1])
    for d in sorted((dim1 % len(shape), dim2 % len(shape))):
        result.insert(d, last)
    return Value(result)


@rule(aten.tril, aten.triu, aten.tril_, aten.triu_)
def triangle(tracer: Tracer, node: fx.Node, x: Value, diagonal: int = 0) -> Value:
    """Zeros above or below a diagonal of the last two dimensions, whose places count."""
    for ids in x[-2:]:
        tracer.pin(ids, "a triangle of it is set to zero")
    return x

"""Rows put or added where data say; those dimensions stay, the others pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.structure.axes import Ids
from secateur.structure.constants import is_mutating
from secateur.structure.rules.gathering import CHOSEN
from secateur.structure.tracer import Tracer, rule
from secateur.structure.values import Value

aten = torch.ops.aten


@rule(aten.index_add, aten.index_add_, aten.index_copy, aten.index_copy_)
def index_add(
    tracer: Tracer, node: fx.Node, x: Value, dim: int, index: Value, source: Value, **kwargs: Any
) -> Value:
    """x with source[i] at, or added to, x[index[i]] for dim 0."""
    dim = dim % len(x)
    for ids in (x[dim], source[dim], *index):
        tracer.pin(ids, CHOSEN)
    passed = [
        np.zeros(len(ids), np.int64) if d == dim else _both(tracer, ids, source[d])
        for d, ids in enumerate(x)
    ]
    return _placed(tracer, node, x, passed)


@rule(aten.index_put, aten.index_put_)
def index_put(
    tracer: Tracer, node: fx.Node, x: Value, indices: Sequence[Any], values: Value, *rest: Any,
    **kwargs: Any,
) -> Value:  # fmt: skip
    """x[..., i, j, ...] = values, whose dimensions are those of x[..., i, j, ...]."""
    indexed = [d for d, index in enumerate(indices) if index is not None]
    operands = node.args[1]
    assert isinstance(operands, (list, tuple))
    if any(_is_mask(operand) for operand in operands):
        raise ValueError("a mask chooses the places")
    for d in indexed:
        tracer.pin(x[d], CHOSEN)
        tracer.pin(indices[d], CHOSEN)
    width = max(len(indices[d]) for d in indexed)
    contiguous = indexed == list(range(indexed[0], indexed[0] + len(indexed)))
    place = indexed[0] if contiguous else 0
    free = [d for d in range(len(x)) if d not in indexed]
    layout: list[int | None] = [*free[:place], *[None] * width, *free[place:]]
    passed = [np.zeros(len(ids), np.int64) if d in indexed else -np.abs(ids)
              for d, ids in enumerate(x)]  # fmt: skip
    for d, ids in zip(reversed(layout), reversed(values), strict=False):
        if d is None:
            tracer.pin(ids, CHOSEN)
        elif len(ids) == len(x[d]):
            passed[d] = _both(tracer, x[d], ids)
    return _placed(tracer, node, x, passed)


def _is_mask(operand: Any) -> bool:
    value = operand.meta.get("val") if isinstance(operand, fx.Node) else None
    return isinstance(value, torch.Tensor) and value.dtype in (torch.bool, torch.uint8)


def _both(tracer: Tracer, ids: Ids, other: Ids) -> Ids:
    """The same dimension of both; zero where it is zero in both."""
    tracer.axes.same(ids, other)
    return np.where((ids > 0) & (other > 0), ids, -np.abs(ids))


def _placed(tracer: Tracer, node: fx.Node, x: Value, passed: list[Ids]) -> Value:
    if is_mutating(node):
        for before, after in zip(x, passed, strict=True):
            tracer.taint(np.where((before > 0) & (after < 0), after, 0))
    return Value(passed)

"""Reductions and softmax: a sum of zeros is nothing, any other statistic is adapted."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.structure.positions import taken
from secateur.structure.rules.pointwise import pointwise
from secateur.structure.tracer import Tracer, rule
from secateur.structure.values import Value, holds_tensor

aten = torch.ops.aten

_SUMS = {aten.sum, aten.nansum, aten.norm, aten.linalg_vector_norm, aten.count_nonzero}


@rule(
    aten.sum, aten.mean, aten.amax, aten.amin, aten.var, aten.std, aten.norm, aten.nansum,
    aten.linalg_vector_norm, aten.logsumexp, aten.var_mean, aten.std_mean, aten.aminmax,
    aten.all, aten.any, aten.prod,
)  # fmt: skip
def reduce(tracer: Tracer, node: fx.Node, x: Value, *args: Any, **kwargs: Any) -> Any:
    """Some dimensions are summed up (or averaged, or their largest value taken)."""
    bound = bound_arguments(node)
    dims = bound.get("dim")
    if dims is None or dims == []:
        dims = list(range(len(x)))
    dims = [dims] if isinstance(dims, int) else dims
    assert isinstance(dims, (list, tuple))
    reduced = {int(d) % len(x) for d in dims} if len(x) else set()
    operation = getattr(node.target, "overloadpacket", None)
    order = bound.get("ord", bound.get("p"))
    smallest = isinstance(order, (int, float)) and order < 0  # a norm that zeros would decide
    for d in reduced:
        if operation not in _SUMS or smallest or (x[d] < 0).any():
            tracer.adapt(node, x[d])
    keep = bool(bound.get("keepdim", False))
    log = operation is aten.logsumexp  # that of zeros is not zero
    result = Value(
        np.zeros(1, np.int64) if d in reduced else -np.abs(ids) if log else ids
        for d, ids in enumerate(x)
        if keep or d not in reduced
    )
    several = isinstance(node.meta["val"], (list, tuple))
    return [result for _ in node.meta["val"]] if several else result


@rule(aten.max, aten.min, aten.median)
def extremum(tracer: Tracer, node: fx.Node, x: Value, *args: Any, **kwargs: Any) -> Any:
    """The largest value of all or of a dimension, with its position; or of two tensors."""
    if len(args) and isinstance(args[0], Value):
        return pointwise(tracer, node, x, *args)
    if isinstance(node.meta["val"], torch.Tensor):
        for ids in x:
            tracer.adapt(node, ids)
        return Value()
    dim = int(args[0]) % len(x)
    used = any(user.args[1] == 1 and user.users for user in node.users)
    tracer.adapt(node, x[dim], 1 + taken(tracer, node, x[dim]) if used else 0)
    if used:
        tracer.point(node, x[dim], 1)
    keep = bool(bound_arguments(node).get("keepdim", False))
    result = Value(
        np.zeros(1, np.int64) if d == dim else ids for d, ids in enumerate(x) if keep or d != dim
    )
    return [result, result]


@rule(aten.softmax, aten._softmax, aten.log_softmax, aten._log_softmax)
def softmax(tracer: Tracer, node: fx.Node, x: Value, dim: int, *args: Any) -> Value:
    """The sum of the exponentials runs over ``dim``; removed entries take no part."""
    dim %= max(len(x), 1)
    if holds_tensor(node.meta["val"]) and len(x):
        tracer.adapt(node, x[dim])
    return Value(np.abs(ids) if d == dim else -np.abs(ids) for d, ids in enumerate(x))


@rule(aten.cumsum)
def cumsum(tracer: Tracer, node: fx.Node, x: Value, dim: int, **kwargs: Any) -> Value:
    """Running sums: what leaves adds zero, but its place holds the sum so far."""
    dim %= len(x)
    if (x[dim] < 0).any():
        tracer.adapt(node, x[dim])
    return Value(-np.abs(ids) if d == dim else ids for d, ids in enumerate(x))


@rule(aten.cumprod, aten.logcumsumexp)
def cumulative(tracer: Tracer, node: fx.Node, x: Value, dim: int, **kwargs: Any) -> Value:
    """What stands after a place depends on it: nothing of the dimension leaves."""
    dim %= len(x)
    tracer.pin(x[dim], "what follows in it depends on it")
    log = node.target is aten.logcumsumexp.default  # that of zeros is not zero
    return Value(-np.abs(ids) if log else ids for ids in x)


def bound_arguments(node: fx.Node) -> dict[str, Any]:
    """Arguments of an ATen node by name, defaults left out."""
    schema = node.target._schema  # type: ignore[union-attr]
    names = [argument.name for argument in schema.arguments]
    bound: dict[str, Any] = dict(zip(names, node.args, strict=False))
    bound.update(node.kwargs)
    return bound

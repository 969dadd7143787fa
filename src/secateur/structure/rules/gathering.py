"""Elements chosen by data along one dimension, which stays; the other dimensions pass.

Unless it is known what the places were chosen from (``positions.py``): then it is that dimension.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.structure.axes import Ids
from secateur.structure.constants import is_mutating
from secateur.structure.positions import taken
from secateur.structure.rules.movement import replaced
from secateur.structure.tracer import Tracer, rule
from secateur.structure.values import Value, result_shape

aten = torch.ops.aten
CHOSEN = "indices are chosen by data"
_EXTREMES = frozenset({aten.argmax.default, aten.argmin.default})


@rule(aten.gather)
def gather(tracer: Tracer, node: fx.Node, x: Value, dim: int, index: Value, **kwargs: Any) -> Value:
    """out[i, j] = x[index[i, j], j] for dim 0: beside ``dim`` both hold the same indices."""
    dim = dim % len(x) if x else 0
    _chosen(tracer, x[dim], node.args[2])
    return Value(
        -np.abs(ids) if d == dim else _aligned(tracer, x[d], ids) for d, ids in enumerate(index)
    )


@rule(aten.scatter, aten.scatter_, aten.scatter_add, aten.scatter_add_, aten.scatter_reduce)
def scatter(
    tracer: Tracer, node: fx.Node, x: Value, dim: int, index: Value, source: Any, *rest: Any,
    **kwargs: Any,
) -> Value:  # fmt: skip
    """x with x[index[i, j], j] = source[i, j] for dim 0."""
    dim = dim % len(x) if x else 0
    along = _chosen(tracer, x[dim], node.args[2])
    result: list[Ids] = []
    for d, ids in enumerate(x):
        if d == dim:
            if isinstance(source, Value):
                _aligned(tracer, index[d], source[d])
            result.append(along)
            continue
        passed = _aligned(tracer, ids, index[d])
        zero = isinstance(source, Value) and _zero_where(source[d], passed)
        if isinstance(source, Value):
            _aligned(tracer, index[d], source[d])
        result.append(passed if zero or not passed.any() else -np.abs(passed))
    if is_mutating(node):
        for before, after in zip(x, result, strict=True):
            tracer.taint(np.where((before > 0) & (after < 0), after, 0))
    return Value(result)


@rule(aten.topk)
def topk(
    tracer: Tracer, node: fx.Node, x: Value, k: int, dim: int = -1, *args: Any, **kwargs: Any
) -> list[Value]:
    """The ``k`` largest values along a dimension, of those that stay, and their places."""
    dim %= len(x)
    if k >= len(x[dim]) or not isinstance(node.args[1], int):
        return ordered(tracer, node, x, k, dim, *args, **kwargs)
    tracer.adapt(node, x[dim], k + taken(tracer, node, x[dim]))
    tracer.point(node, x[dim], 1)
    values = replaced(x, dim, np.zeros(k, np.int64))
    return [values, Value(-np.abs(ids) for ids in values)]


@rule(aten.sort, aten.kthvalue, aten.cummax, aten.cummin)
def ordered(tracer: Tracer, node: fx.Node, x: Value, *args: Any, **kwargs: Any) -> list[Value]:
    """Values and places along a dimension, whose indices stay; (values, indices)."""
    dim = int(_dimension(node, args, kwargs)) % len(x)
    tracer.pin(x[dim], "values are put in order across it")
    length = int(node.meta["val"][0].shape[dim])
    values = replaced(x, dim, np.zeros(length, np.int64))
    return [values, Value(-np.abs(ids) for ids in values)]


@rule(aten.argsort, aten.argmax, aten.argmin)
def places(tracer: Tracer, node: fx.Node, x: Value, *args: Any, **kwargs: Any) -> Value:
    """Places along a dimension: of the extreme one among those that stay, or of all of them in
    order, and then they stay. Without a dimension everything does."""
    dim = _dimension(node, args, kwargs)
    shape = result_shape(node)
    if dim is None:
        tracer.pin(x, "places of values are returned")
        return Value(np.zeros(size, np.int64) for size in shape)
    if node.target in _EXTREMES:
        tracer.adapt(node, x[dim % len(x)], 1 + taken(tracer, node, x[dim % len(x)]))
        tracer.point(node, x[dim % len(x)])
    else:
        tracer.pin(x[dim % len(x)], "places of values are returned")
    passed = [ids for d, ids in enumerate(x) if d != dim % len(x)]
    if len(shape) == len(x):
        passed.insert(dim % len(x), np.zeros(shape[dim % len(x)], np.int64))
    return Value(-np.abs(ids) for ids in passed)


def _chosen(tracer: Tracer, ids: Ids, index: Any) -> Ids:
    """The dimension in which places are chosen: theirs where they were chosen from one."""
    places = tracer.pointed(index)
    if places is not None and len(places) == len(ids):
        tracer.axes.same(ids, places)
        return ids
    tracer.pin(ids, CHOSEN)
    if places is not None:
        tracer.pin(places, CHOSEN)
    return np.zeros(len(ids), np.int64)


def _dimension(node: fx.Node, args: Any, kwargs: Any) -> Any:
    arguments = node.target._schema.arguments[1:]  # type: ignore[union-attr]
    given = dict(zip((a.name for a in arguments), args, strict=False)) | kwargs
    return given.get("dim", next(a.default_value for a in arguments if a.name == "dim"))


def _aligned(tracer: Tracer, ids: Ids, other: Ids) -> Ids:
    """The same dimension of two operands; where the second is shorter nothing leaves."""
    if len(ids) == len(other):
        tracer.axes.same(ids, other)
        return ids
    tracer.pin(ids, "only a part of it is used")
    tracer.pin(other, "it stands for a part of a dimension")
    return np.zeros(len(other), np.int64)


def _zero_where(source: Ids, passed: Ids) -> bool:
    return len(source) == len(passed) and bool((source[passed > 0] > 0).all())

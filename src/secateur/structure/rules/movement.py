"""Operations that only move data: the id vectors move the same way."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.structure.constants import is_written
from secateur.structure.tracer import Count, Tracer, rule
from secateur.structure.values import Value, result_shape, sizes_of

aten = torch.ops.aten


@rule(
    aten.permute, aten.transpose, aten.transpose_, aten.t, aten.mT, aten.movedim, aten.moveaxis,
    aten.swapaxes, aten.swapdims, aten.flip, aten.numpy_T, aten.adjoint, aten.fliplr, aten.flipud,
    aten.matrix_H, aten.rot90,
)  # fmt: skip
def permuted(tracer: Tracer, node: fx.Node, x: Value, *args: Any) -> Value:
    """Run the operation itself on labels, one dimension at a time, and read them off."""
    shape = x.shape
    result: list[np.ndarray] = [np.zeros(size, np.int64) for size in result_shape(node)]
    for d, ids in enumerate(x):
        if not ids.any():
            continue
        small = [len(ids) if e == d else 1 for e in range(len(shape))]
        label = torch.arange(len(ids)).reshape(small)
        assert callable(node.target)
        moved = node.target(label, *args)
        home = next(e for e, size in enumerate(moved.shape) if size > 1)
        result[home] = ids[moved.reshape(-1).numpy()]
    return Value(result)


@rule(aten.slice)
def slice_(
    tracer: Tracer,
    node: fx.Node,
    x: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    """x[..., start:end:step]; bounds count the survivors before them."""
    dim %= len(x)
    ids = x[dim]
    chosen = np.arange(len(ids))[slice(start, end, step)]
    if ids.any() and len(chosen) != len(ids):
        if step != 1 and is_written(node):  # its survivors have no stride: no view can hold them
            tracer.pin(ids, "every so manieth index is written in place")
        elif step != 1:
            tracer.counts.append(Count(node, "dim", np.abs(ids), kind="lookup", chosen=chosen))
        elif len(chosen):
            first, after = int(chosen[0]), int(chosen[-1]) + 1
            if start:
                tracer.position(node, "start", ids, first)
            if end is not None and end < len(ids):
                tracer.position(node, "end", ids, after)
    return replaced(x, dim, ids[chosen])


@rule(aten.narrow)
def narrow(tracer: Tracer, node: fx.Node, x: Value, dim: int, start: int, length: int) -> Value:
    """x[..., start:start+length]."""
    dim %= len(x)
    start %= len(x[dim])
    if x[dim].any():
        tracer.position(node, "start", x[dim], start)
        tracer.counts.append(Count(node, "length", np.abs(x[dim][start : start + length])))
    return replaced(x, dim, x[dim][start : start + length])


@rule(aten.select)
def select(tracer: Tracer, node: fx.Node, x: Value, dim: int, index: int) -> Value:
    """x[..., index]: that index is used by itself and stays."""
    dim %= len(x)
    index %= len(x[dim])
    tracer.pin(x[dim][index : index + 1], "this index is selected by itself")
    tracer.position(node, "index", x[dim], index)
    return Value(ids for d, ids in enumerate(x) if d != dim)


@rule(aten.unbind)
def unbind(tracer: Tracer, node: fx.Node, x: Value, dim: int = 0) -> list[Value]:
    """Every index becomes a tensor of its own and stays."""
    dim %= len(x)
    tracer.pin(x[dim], "every index is used by itself")
    rest = Value(ids for d, ids in enumerate(x) if d != dim)
    return [rest for _ in x[dim]]


@rule(aten.split, aten.chunk, aten.split_with_sizes, aten.unsafe_chunk, aten.unsafe_split)
@rule(aten.tensor_split)
def split(tracer: Tracer, node: fx.Node, x: Value, sizes: Any, dim: int = 0) -> list[Value]:
    """Consecutive pieces of a dimension."""
    dim %= len(x)
    bounds = np.cumsum([0, *(sizes_of(t)[dim] for t in node.meta["val"])])
    pieces = [x[dim][a:b] for a, b in pairwise(bounds)]
    if x[dim].any():
        widths = tuple(np.abs(piece) for piece in pieces)
        tracer.counts.append(Count(node, "", np.abs(x[dim]), kind="pieces", pieces=widths))
    return [replaced(x, dim, piece) for piece in pieces]


@rule(aten.cat, aten.concat, aten.concatenate)
def cat(tracer: Tracer, node: fx.Node, tensors: Sequence[Value], dim: int = 0) -> Value:
    """Concatenation of vectors along ``dim``, a tie along the others."""
    tensors = [x for x in tensors if not (len(x) == 1 and len(x[0]) == 0)]
    dim %= len(tensors[0])
    result = []
    for d in range(len(tensors[0])):
        if d == dim:
            result.append(np.concatenate([x[d] for x in tensors]))
            continue
        tied = tracer.tie([x[d] for x in tensors])
        zero = np.all([x[d] > 0 for x in tensors], axis=0)
        result.append(np.where(zero, np.abs(tied), -np.abs(tied)))
    return Value(result)


@rule(aten.stack)
def stack(tracer: Tracer, node: fx.Node, tensors: Sequence[Value], dim: int = 0) -> Value:
    """A new dimension whose indices are used by themselves."""
    dim %= len(tensors[0]) + 1
    tied = []
    for d in range(len(tensors[0])):
        vector = tracer.tie([x[d] for x in tensors])
        zero = np.all([x[d] > 0 for x in tensors], axis=0)
        tied.append(np.where(zero, np.abs(vector), -np.abs(vector)))
    tied.insert(dim, np.zeros(len(tensors), np.int64))
    return Value(tied)


@rule(aten.roll)
def roll(
    tracer: Tracer, node: fx.Node, x: Value, shifts: Sequence[int], dims: Sequence[int] = ()
) -> Value:
    """Cyclic shift; the shift counts the survivors that wrap around."""
    if not dims:
        return tracer.hold(node, "roll over the flattened tensor")
    result = list(x)
    for item, (shift, dim) in enumerate(zip(shifts, dims, strict=True)):
        dim %= len(x)
        ids = result[dim]
        if not ids.any():
            continue
        wrapped = int(shift) % len(ids)
        tracer.counts.append(Count(node, "shifts", np.abs(ids), item, kind="shift", place=wrapped))
        result[dim] = np.roll(ids, wrapped)
    return Value(result)


@rule(aten.expand, aten.expand_copy, aten.broadcast_to)
def expand(tracer: Tracer, node: fx.Node, x: Value, size: Any, **kwargs: Any) -> Value:
    """A size of 1 (or a new dimension) repeated; such an index only leaves along with others."""
    shape = result_shape(node)
    lead = len(shape) - len(x)
    result = []
    for place, length in enumerate(shape):
        d = place - lead
        if d >= 0 and len(x[d]) == length:
            result.append(x[d])
        else:
            result.append(-tracer.axes.fresh(length, weak=True))
        if isinstance(size[place], int) and size[place] != -1:
            tracer.count(node, "size", result[-1], place)
    return Value(result)


@rule(aten.expand_as)
def expand_as(tracer: Tracer, node: fx.Node, x: Value, other: Value) -> Value:
    """Broadcast to the shape of another tensor: the new indices are that tensor's."""
    lead = len(other) - len(x)
    return Value(
        x[d - lead] if d >= lead and len(x[d - lead]) == len(ids) else -np.abs(ids)
        for d, ids in enumerate(other)
    )


@rule(aten.repeat, aten.tile)
def repeat(tracer: Tracer, node: fx.Node, x: Value, repeats: Sequence[int]) -> Value:
    """Copies side by side; a copied index leaves with its origin."""
    lead = len(result_shape(node)) - len(x)
    vectors = [np.zeros(1, np.int64)] * lead + list(x)
    times = [1] * (len(vectors) - len(repeats)) + [int(r) for r in repeats]
    result = []
    for item, (ids, count) in enumerate(zip(vectors, times, strict=True)):
        if len(ids) == 1 and count > 1:
            fresh = -tracer.axes.fresh(count, weak=True)
            if node.target is aten.repeat.default:
                tracer.count(node, "repeats", fresh, item)
            else:
                tracer.pin(fresh, "the dimension only repeats")
            result.append(fresh)
        else:
            result.append(np.tile(ids, count))
    return Value(result)


@rule(aten.repeat_interleave)
def repeat_interleave(
    tracer: Tracer, node: fx.Node, x: Value, repeats: Any, dim: int | None = None, **kwargs: Any
) -> Value:
    """Every index repeated in place."""
    if dim is None or not isinstance(repeats, int):
        return tracer.hold(node, "repeat_interleave with a tensor of counts")
    dim %= len(x)
    ids = np.repeat(x[dim], repeats)
    if isinstance(kwargs.get("output_size"), int):
        tracer.count(node, "output_size", ids)
    return replaced(x, dim, ids)


def replaced(x: Value, dim: int, ids: np.ndarray) -> Value:
    """The value with other ids along one dimension."""
    return Value(ids if d == dim else other for d, other in enumerate(x))

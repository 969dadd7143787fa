"""Reshapes: both sides are refined to common factors, then split and merged."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.structure.tracer import Tracer, rule
from secateur.structure.values import Value, result_shape

aten = torch.ops.aten


@rule(
    aten.view, aten.reshape, aten._unsafe_view, aten.flatten, aten.unflatten, aten.squeeze,
    aten.squeeze_, aten.unsqueeze, aten.unsqueeze_, aten.view_as, aten.reshape_as,
    aten.atleast_1d, aten.atleast_2d,
)  # fmt: skip
def view(tracer: Tracer, node: fx.Node, x: Value, *args: Any) -> Value:
    """The same elements in row-major order under another shape."""
    if node.target is aten.view.dtype:
        return tracer.hold(node, "the bits are read as another type")
    shape = result_shape(node)
    result = reshaped(tracer, x, shape)
    _count_literals(tracer, node, result)
    return result


def reshaped(tracer: Tracer, x: Value, shape: tuple[int, ...]) -> Value:
    """Id vectors after a reshape of ``x`` to ``shape``."""
    result: list[np.ndarray] = [np.zeros(size, np.int64) for size in shape]
    for inside, outside in aligned_blocks(x.shape, shape):
        sizes_in = [len(x[d]) for d in inside]
        sizes_out = [shape[d] for d in outside]
        if not any(x[d].any() for d in inside):
            continue
        if sizes_in == sizes_out:
            for d, e in zip(inside, outside, strict=True):
                result[e] = x[d]
            continue
        factors = common_factors(sizes_in, sizes_out)
        if factors is None:
            for d in inside:
                tracer.pin(x[d], f"a reshape of {sizes_in} to {sizes_out} cuts across it")
            continue
        pieces: list[np.ndarray] = []
        rest = list(factors)
        for d in inside:
            parts = take(rest, len(x[d]))
            pieces += tracer.axes.split(x[d], parts) if len(parts) > 1 else [x[d]]
        for e in outside:
            parts = take(pieces, shape[e], len)
            result[e] = tracer.axes.merge(parts) if len(parts) > 1 else parts[0]
    return Value(result)


def aligned_blocks(a: tuple[int, ...], b: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Runs of dimensions of both shapes with equal products; sizes of 1 are left out.

    (2, 12, 5) and (2, 3, 4, 5) -> [([0], [0]), ([1], [1, 2]), ([2], [3])]
    """
    left = [d for d, size in enumerate(a) if size != 1]
    right = [d for d, size in enumerate(b) if size != 1]
    blocks = []
    i = j = 0
    while i < len(left) and j < len(right):
        inside, outside = [left[i]], [right[j]]
        m, n = a[left[i]], b[right[j]]
        i, j = i + 1, j + 1
        while m != n:
            if m < n:
                m *= a[left[i]]
                inside.append(left[i])
                i += 1
            else:
                n *= b[right[j]]
                outside.append(right[j])
                j += 1
        blocks.append((inside, outside))
    return blocks


def common_factors(a: list[int], b: list[int]) -> list[int] | None:
    """The coarsest sizes that refine both factorisations, or None when they do not nest.

    [12] and [3, 4] -> [3, 4];  [2, 6] and [4, 3] -> [2, 2, 3];  [6, 4] and [4, 6] -> None
    """
    bounds = sorted({int(n) for sizes in (a, b) for n in np.cumprod(sizes[::-1])} | {1})
    factors = []
    for small, large in pairwise(bounds):
        if large % small:
            return None
        factors.append(large // small)
    return factors[::-1]


def take(items: list[Any], size: int, measure: Any = int) -> list[Any]:
    """Pop leading items whose sizes multiply to ``size``."""
    taken = [items.pop(0)]
    total = measure(taken[0])
    while total < size:
        taken.append(items.pop(0))
        total *= measure(taken[-1])
    return taken


def _count_literals(tracer: Tracer, node: fx.Node, result: Value) -> None:
    if node.target in (aten.view.default, aten.reshape.default, aten._unsafe_view.default):
        name = node.target._schema.arguments[1].name  # "size" or "shape"
        for place, ids in enumerate(result):
            tracer.count(node, name, ids, place)
    elif node.target is aten.unflatten.int:
        dim = int(node.args[1]) % (len(result) - len(node.args[2]) + 1)  # type: ignore[arg-type]
        for place in range(len(node.args[2])):  # type: ignore[arg-type]
            tracer.count(node, "sizes", result[dim + place], place)


@rule(aten.pixel_shuffle)
def pixel_shuffle(tracer: Tracer, node: fx.Node, x: Value, factor: int) -> Value:
    """Channels c * r * r to c channels of r times the height and width."""
    *lead, channels, height, width = x
    outer, inner = tracer.axes.split(channels, [len(channels) // factor**2, factor**2])
    tracer.pin(inner, "pixel_shuffle moves it into the image")
    return Value([*lead, outer, np.repeat(height, factor), np.repeat(width, factor)])


@rule(aten.pixel_unshuffle)
def pixel_unshuffle(tracer: Tracer, node: fx.Node, x: Value, factor: int) -> Value:
    """c channels to c * r * r channels of a smaller image."""
    *lead, channels, height, width = x
    tracer.pin(height, "pixel_unshuffle moves it into the channels")
    tracer.pin(width, "pixel_unshuffle moves it into the channels")
    flat = np.repeat(channels, factor**2)
    small = [np.zeros(len(v) // factor, np.int64) for v in (height, width)]
    return Value([*lead, flat, *small])


@rule(aten.channel_shuffle, aten.native_channel_shuffle)
def channel_shuffle(tracer: Tracer, node: fx.Node, x: Value, groups: int) -> Value:
    """(g, c/g) transposed."""
    ids = x[1]
    outer, inner = tracer.axes.split(ids, [groups, len(ids) // groups])
    tracer.count(node, "groups", outer)
    return Value([x[0], tracer.axes.merge([inner, outer]), *x[2:]])

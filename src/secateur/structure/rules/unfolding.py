"""Windows of a dimension, patches of an image as columns, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import fx

from secateur.structure.tracer import Tracer, rule
from secateur.structure.values import Value, result_shape

aten = torch.ops.aten


@rule(aten.unfold)
def unfold(tracer: Tracer, node: fx.Node, x: Value, dim: int, size: int, step: int) -> Value:
    """x.unfold(dim, size, step): places along ``dim``, and their windows in a last dimension."""
    dim %= len(x)
    tracer.pin(x[dim], "a window slides over it")
    shape = result_shape(node)
    places, window = np.zeros(shape[dim], np.int64), np.zeros(size, np.int64)
    return Value([*(places if d == dim else ids for d, ids in enumerate(x)), window])


@rule(aten.im2col)
def im2col(
    tracer: Tracer, node: fx.Node, x: Value, kernel: Sequence[int], *window: Sequence[int]
) -> Value:
    """x [N, C, H, W] -> [N, C * kernel, places]: each channel becomes a run of rows."""
    for ids in x[-2:]:
        tracer.pin(ids, "a window slides over it")
    places = np.zeros(int(node.meta["val"].shape[-1]), np.int64)
    return Value([*x[:-3], np.repeat(x[-3], math.prod(kernel)), places])


@rule(aten.col2im)
def col2im(
    tracer: Tracer,
    node: fx.Node,
    x: Value,
    output: Sequence[int],
    kernel: Sequence[int],
    *window: Sequence[int],
) -> Value:
    """x [N, C * kernel, places] -> [N, C, H, W]; what overlaps is summed."""
    taps = math.prod(kernel)
    channel, tap = tracer.axes.split(x[-2], [len(x[-2]) // taps, taps])
    tracer.pin(tap, "it is one place of the window")
    tracer.pin(x[-1], "a window slides over it")
    zero = (x[-2] > 0).reshape(-1, taps).all(axis=1)
    channel = np.where(zero, np.abs(channel), -np.abs(channel))
    return Value([*x[:-2], channel, *(np.zeros(int(size), np.int64) for size in output)])

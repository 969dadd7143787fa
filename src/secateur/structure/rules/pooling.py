"""Pooling, padding and resizing: channels pass, the image stays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.structure.tracer import Count, Tracer, rule
from secateur.structure.values import Value, hint, result_shape

aten = torch.ops.aten


def resample(tracer: Tracer, node: fx.Node, x: Value, *args: Any, rank: int, **kwargs: Any) -> Any:
    """The last ``rank`` dimensions are the image; zero stays zero."""
    result = node.meta["val"]
    several = isinstance(result, (list, tuple))
    first = result[0] if several else result
    lead = len(x) - rank
    for ids in x[lead:]:
        tracer.pin(ids, "a window slides over it")
    value = Value([*x[:lead], *(np.zeros(hint(size), np.int64) for size in first.shape[lead:])])
    if not several:
        return value
    return [value, *(Value(-np.abs(ids) for ids in value) for _ in result[1:])]  # and the places


for _rank, _operations in {
    1: (
        aten.max_pool1d, aten.avg_pool1d, aten.adaptive_avg_pool1d, aten.adaptive_max_pool1d,
        aten.upsample_nearest1d, aten._upsample_nearest_exact1d, aten.upsample_linear1d,
        aten.max_pool1d_with_indices,
    ),
    2: (
        aten.max_pool2d, aten.avg_pool2d, aten.adaptive_avg_pool2d, aten.adaptive_max_pool2d,
        aten.upsample_nearest2d, aten._upsample_nearest_exact2d, aten.upsample_bilinear2d,
        aten.upsample_bicubic2d, aten._upsample_bilinear2d_aa, aten._upsample_bicubic2d_aa,
        aten.max_pool2d_with_indices,
    ),
    3: (
        aten.max_pool3d, aten.avg_pool3d, aten.adaptive_avg_pool3d, aten.adaptive_max_pool3d,
        aten.upsample_nearest3d, aten._upsample_nearest_exact3d, aten.upsample_trilinear3d,
    ),
}.items():  # fmt: skip
    rule(*_operations)(partial(resample, rank=_rank))


@rule(aten.max_unpool2d, aten.max_unpool3d)
def unpool(tracer: Tracer, node: fx.Node, x: Value, places: Value, *args: Any) -> Value:
    """Values back at the places of an image that pooling took them from; zeros around them."""
    rank = 3 if node.target is aten.max_unpool3d.default else 2
    for a, b in zip(x, places, strict=True):
        tracer.axes.same(a, b)
    return resample(tracer, node, x, rank=rank)


@rule(aten.pad, aten.constant_pad_nd, aten.reflection_pad1d, aten.reflection_pad2d)
@rule(aten.replication_pad1d, aten.replication_pad2d, aten.reflection_pad3d)
@rule(aten.replication_pad3d)
def pad(
    tracer: Tracer,
    node: fx.Node,
    x: Value,
    padding: Sequence[int],
    mode: Any = "constant",
    value: float | None = None,
) -> Value:
    """Pairs of amounts from the last dimension on; padded indices are new ones."""
    if node.target is aten.constant_pad_nd.default:
        mode, value = "constant", mode if isinstance(mode, (int, float)) else 0
    elif node.target is not aten.pad.default:
        mode = "reflect"
    shape = result_shape(node)
    result = list(x)
    sign = 1 if not value else -1
    for pair in range(len(padding) // 2):
        d = len(x) - 1 - pair
        low, high = int(padding[2 * pair]), int(padding[2 * pair + 1])
        if (low, high) == (0, 0):
            continue
        ids = x[d]
        if not ids.any() and not _is_channel(d, len(x)):
            result[d] = np.zeros(shape[d], np.int64)
            continue
        if mode != "constant" or low < 0 or high < 0:
            tracer.pin(ids, "it is padded with its own values, or cropped")
            result[d] = np.zeros(shape[d], np.int64)
            continue
        parts = [
            sign * tracer.axes.fresh(low, lone=True),
            ids,
            sign * tracer.axes.fresh(high, lone=True),
        ]
        for item, part in ((2 * pair, parts[0]), (2 * pair + 1, parts[2])):
            if len(part):
                tracer.counts.append(Count(node, "pad", np.abs(part), item))
        result[d] = np.concatenate(parts)
    if sign < 0:
        padded = {len(x) - 1 - pair for pair in range(len(padding) // 2)}
        result = [ids if d in padded else -np.abs(ids) for d, ids in enumerate(result)]
    return Value(result)


def _is_channel(d: int, rank: int) -> bool:
    return d == 1 and rank > 2

"""Normalisations. Where the statistic runs across what leaves, the result is adapted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.structure.axes import signed
from secateur.structure.tracer import Tracer, rule
from secateur.structure.values import Value

aten = torch.ops.aten

# Its sixth argument is the momentum.
_FIXED = aten._native_batch_norm_legit_no_training.default


@rule(aten.batch_norm, aten._native_batch_norm_legit_no_training, aten.instance_norm)
def batch_norm(
    tracer: Tracer,
    node: fx.Node,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value | None,
    variance: Value | None,
    own_statistics: bool = False,
    *args: Any,
) -> Value:
    """Statistics per channel: nothing runs across channels.

    Own statistics run over all other dimensions, also where these are no batch and no image:
    weights are standardised so.
    """
    for vector in (weight, bias, mean, variance):
        if vector is not None:
            tracer.axes.same(x[1], vector[0])
    own = own_statistics and node.target is not _FIXED
    if own:
        for d, ids in enumerate(x):
            if d > 1 or (d == 0 and node.target is aten.batch_norm.default):
                tracer.adapt(node, ids)
    zero = x[1] > 0
    if mean is not None and not own:
        zero &= mean[0] > 0
    return _affine(x, zero, weight, bias)


@rule(aten.layer_norm)
def layer_norm(
    tracer: Tracer,
    node: fx.Node,
    x: Value,
    normalized_shape: Sequence[int],
    weight: Value | None = None,
    bias: Value | None = None,
    *args: Any,
) -> Value:
    """The statistic runs over the last dimensions."""
    return _over_last(tracer, node, x, len(normalized_shape), weight, bias)


@rule(aten.rms_norm)
def rms_norm(
    tracer: Tracer,
    node: fx.Node,
    x: Value,
    normalized_shape: Sequence[int],
    weight: Value | None = None,
    eps: float | None = None,
) -> Value:
    """The root mean square runs over the last dimensions."""
    return _over_last(tracer, node, x, len(normalized_shape), weight, None)


def _over_last(
    tracer: Tracer,
    node: fx.Node,
    x: Value,
    rank: int,
    weight: Value | None,
    bias: Value | None,
) -> Value:
    result = [ids if bias is None else -np.abs(ids) for ids in x]
    for place in range(rank):
        d = len(x) - rank + place
        tracer.adapt(node, x[d])
        tracer.count(node, "normalized_shape", x[d], place)
        for vector in (weight, bias):
            if vector is not None:
                tracer.axes.same(x[d], vector[place])
        result[d] = np.abs(x[d])
    return Value(result)


@rule(aten.group_norm)
def group_norm(
    tracer: Tracer,
    node: fx.Node,
    x: Value,
    groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    *args: Any,
) -> Value:
    """The statistic runs inside each of the groups of channels, and over the image."""
    outer, inner = tracer.axes.split(x[1], [groups, len(x[1]) // groups])
    for ids in (inner, *x[2:]):
        tracer.adapt(node, ids)
    tracer.count(node, "num_groups", outer)
    for vector in (weight, bias):
        if vector is not None:
            tracer.axes.same(x[1], vector[0])
    return _affine(x, x[1] > 0, weight, bias)


def _affine(x: Value, zero: np.ndarray, weight: Value | None, bias: Value | None) -> Value:
    """x times the weight plus the bias, one of each per channel; ``zero``: where x was zero."""
    if weight is not None:
        zero = zero | (weight[0] > 0)
    if bias is not None:
        zero = zero & (bias[0] > 0)
    return Value(signed(ids, zero) if d == 1 else -np.abs(ids) for d, ids in enumerate(x))


@rule(aten._weight_norm)
def weight_norm(tracer: Tracer, node: fx.Node, v: Value, g: Value, dim: int = 0) -> Value:
    """g * v / ||v||, the norm over all dimensions but ``dim``: a sum, zeros do not matter."""
    tracer.axes.same(v[dim], g[dim])
    return v

"""Convolutions. A grouped one is a reshape of both its channel dimensions in disguise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.structure.axes import signed
from secateur.structure.tracer import Tracer, rule
from secateur.structure.values import Value, result_shape

aten = torch.ops.aten


@rule(aten.conv1d, aten.conv2d, aten.conv3d)
def conv(
    tracer: Tracer,
    node: fx.Node,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    """x [N, in, ...] with weight [out, in / groups, ...]."""
    channel = len(x) - (len(weight) - 2) - 1
    space = _hold_space(tracer, node, weight, x[channel + 1 :], (stride, padding))
    produced = weight[0]
    if groups == 1:
        tracer.contract(node, x[channel], weight[1], weight=True)
    else:
        group, inside = tracer.axes.split(x[channel], [groups, len(x[channel]) // groups])
        tracer.contract(node, inside, weight[1], weight=True)
        blocks, _ = tracer.axes.split(produced, [groups, len(produced) // groups])
        tracer.axes.same(group, blocks)
        tracer.count(node, "groups", blocks)
    tracer.produce(produced)
    if bias is not None:
        tracer.axes.same(produced, bias[0])
        tracer.produce(bias[0])
    kernel = int(np.prod([len(k) for k in weight[2:]]))
    if bias is not None:
        space = [-np.abs(ids) for ids in space]
        produced = signed(produced, (produced > 0) & (bias[0] > 0))
    lead = [ids if bias is None else -np.abs(ids) for ids in x[:channel]]
    result = Value([*lead, produced, *space])
    tracer.work(node, kernel, [*result, weight[1]])
    return result


@rule(aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d)
def conv_transpose(
    tracer: Tracer,
    node: fx.Node,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Value:
    """x [N, in, ...] with weight [in, out / groups, ...]."""
    channel = len(x) - (len(weight) - 2) - 1
    space = _hold_space(tracer, node, weight, x[channel + 1 :], (stride, padding))
    if groups == 1:
        tracer.contract(node, x[channel], weight[0], weight=True)
        produced = weight[1]
    else:
        tracer.contract(node, x[channel], weight[0], weight=True)
        group, _ = tracer.axes.split(weight[0], [groups, len(weight[0]) // groups])
        produced = tracer.axes.merge([group, weight[1]])
        tracer.count(node, "groups", group)
    tracer.produce(weight[1])
    if bias is not None:
        tracer.axes.same(produced, bias[0])
        tracer.produce(bias[0])
    kernel = int(np.prod([len(k) for k in weight[2:]]))
    if bias is not None:
        space = [-np.abs(ids) for ids in space]
        produced = signed(produced, (produced > 0) & (bias[0] > 0))
    lead = [ids if bias is None else -np.abs(ids) for ids in x[:channel]]
    result = Value([*lead, produced, *space])
    tracer.work(node, kernel, [*x, weight[1]])
    return result


def _hold_space(
    tracer: Tracer, node: fx.Node, weight: Value, space: tuple[np.ndarray, ...], slides: tuple
) -> list[np.ndarray]:
    """Pin kernel and image; a kernel of 1 that steps by 1 looks at one place and lets it pass."""
    for ids in weight[2:]:
        tracer.pin(ids, KERNEL)
    stride, padding = slides
    steps = [stride] if isinstance(stride, int) else list(stride)
    pads = [padding] if isinstance(padding, int) else list(padding)
    still = all(step == 1 for step in steps) and all(p in (0, "valid") for p in pads)
    if still and all(len(ids) == 1 for ids in weight[2:]):
        return list(space)
    for ids in space:
        tracer.pin(ids, "a convolution slides over it")
    return [np.zeros(size, np.int64) for size in result_shape(node)[-len(space) :]]


KERNEL = "a kernel size"

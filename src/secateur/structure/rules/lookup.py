"""Embeddings: rows are chosen by data and stay, columns pass.

Where it is known what the places were chosen from (``positions.py``), rows are of that dimension.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.structure.tracer import Tracer, rule
from secateur.structure.values import Value, result_shape

aten = torch.ops.aten


@rule(aten.embedding)
def embedding(tracer: Tracer, node: fx.Node, weight: Value, index: Value, *args: Any) -> Value:
    """weight [vocabulary, width], index [...] -> [..., width]."""
    rows = tracer.pointed(node.args[1])
    padded = args not in ((), (-1,))
    if rows is not None and len(rows) == len(weight[0]) and not padded:
        tracer.axes.same(weight[0], rows)
    else:
        for held in (weight[0], rows):
            if held is not None:
                tracer.pin(held, "rows are chosen by the data")
    tracer.produce(weight[1])
    return Value([*(-np.abs(ids) for ids in index), weight[1]])


@rule(aten.embedding_bag)
def embedding_bag(tracer: Tracer, node: fx.Node, weight: Value, *args: Any) -> list[Any]:
    """Bags of rows summed or averaged: [bags, width] and three tensors of bookkeeping."""
    tracer.pin(weight[0], "rows are chosen by the data")
    tracer.produce(weight[1])
    results = node.meta["val"]
    bags = np.zeros(int(results[0].shape[0]), np.int64)
    return [Value([bags, weight[1]]), None, None, None]


@rule(aten.one_hot)
def one_hot(
    tracer: Tracer, node: fx.Node, index: Value, num_classes: int = -1, *rest: Any
) -> Value:
    """Classes from data stay; of places in a dimension they are its indices."""
    shape, places = result_shape(node), tracer.pointed(node.args[0])
    if places is None:
        return Value(np.zeros(size, np.int64) for size in shape)
    if num_classes != len(places):
        tracer.pin(places, "the number of classes is not that of the places")
        return Value(np.zeros(size, np.int64) for size in shape)
    tracer.count(node, "num_classes", places)
    return Value([*(-np.abs(ids) for ids in index), places])


@rule(aten.histc)
def histogram(
    tracer: Tracer, node: fx.Node, x: Value, bins: int = 100, min: float = 0, max: float = 0
) -> Value:
    """How often each place in a dimension was chosen: a bin for each index; none without it."""
    places = tracer.pointed(node.args[0])
    tracer.pin(x, "values are counted")
    if places is None or bins != len(places) or (min, max) != (0, bins - 1):
        if places is not None:
            tracer.pin(places, "the bins are not those of the places")
        return Value([np.zeros(bins, np.int64)])
    tracer.count(node, "bins", places)
    tracer.last(node, "max", places)
    return Value([places])

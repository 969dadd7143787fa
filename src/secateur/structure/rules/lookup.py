"""Embeddings: rows are chosen by data and stay, columns pass."""

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
    tracer.pin(weight[0], "rows are chosen by the data")
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
def one_hot(tracer: Tracer, node: fx.Node, index: Value, *args: Any) -> Value:
    """Classes from data stay."""
    return Value(np.zeros(size, np.int64) for size in result_shape(node))

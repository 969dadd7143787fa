"""Indices given as tensors: constant ones move, those that come from data hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.structure.rules.movement import replaced
from secateur.structure.tracer import Count, Tracer, rule
from secateur.structure.values import Value, result_shape

aten = torch.ops.aten


@rule(aten.index_select)
def index_select(tracer: Tracer, node: fx.Node, x: Value, dim: int, index: Any) -> Value:
    """Rows chosen by a constant tensor move; rows chosen by data stay."""
    dim %= len(x)
    chosen = constant_of(node.args[2])
    if chosen is None or not x[dim].any():
        tracer.pin(x[dim], "indices are chosen by data")
        return replaced(x, dim, np.zeros(result_shape(node)[dim], np.int64))
    tracer.counts.append(Count(node, "index", np.abs(x[dim]), kind="lookup", chosen=chosen))
    return replaced(x, dim, x[dim][chosen])


@rule(aten.index)
def index(tracer: Tracer, node: fx.Node, x: Value, indices: Sequence[Any]) -> Value:
    """x[..., i, ...]: dimensions that are not indexed pass, a constant vector moves one."""
    indexed = [d for d, entry in enumerate(indices) if entry is not None]
    shape = result_shape(node)
    operands = node.args[1]
    assert isinstance(operands, (list, tuple))
    first = indexed[0]
    width = len(shape) - (len(x) - len(indexed))
    chosen = constant_of(operands[first]) if len(indexed) == 1 else None
    if chosen is not None and chosen.ndim == 1 and x[first].any():
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen)
        chosen = chosen % len(x[first])
        tracer.counts.append(
            Count(node, "indices", np.abs(x[first]), first, kind="lookup", chosen=chosen)
        )
        middle = [x[first][chosen]]
    else:
        for d in indexed:
            tracer.pin(x[d], "indices are chosen by data")
        contiguous = indexed == list(range(first, first + len(indexed)))
        place = first if contiguous else 0
        middle = [np.zeros(size, np.int64) for size in shape[place : place + width]]
        if not contiguous:
            first = 0
    rest = [ids for d, ids in enumerate(x) if d not in indexed]
    for entry in indices:
        if isinstance(entry, Value):
            tracer.pin(entry, "it chooses indices")
    return Value([*rest[:first], *middle, *rest[first:]])


def constant_of(node: Any) -> np.ndarray | None:
    """Evaluate a constant subgraph of the captured graph; None where it is not constant."""
    if not isinstance(node, fx.Node):
        return None
    values: dict[fx.Node, Any] = {}

    def evaluate(n: fx.Node) -> Any:
        if n in values:
            return values[n]
        if n.op == "get_attr":
            result = _attribute(n)
        elif n.op == "call_function" and not any(m.op == "placeholder" for m in _above(n)):
            args = fx.map_arg(n.args, evaluate)
            kwargs = fx.map_arg(n.kwargs, evaluate)
            assert callable(n.target)
            result = n.target(*args, **kwargs)
        else:
            raise LookupError(n.name)
        values[n] = result
        return result

    try:
        result = evaluate(node)
    except LookupError:
        return None
    return result.detach().cpu().numpy() if isinstance(result, torch.Tensor) else None


def _above(node: fx.Node) -> set[fx.Node]:
    seen: set[fx.Node] = set()
    queue = [node]
    while queue:
        for operand in queue.pop().all_input_nodes:
            if operand not in seen:
                seen.add(operand)
                queue.append(operand)
    return seen


def _attribute(node: fx.Node) -> Any:
    module = node.graph.owning_module
    assert module is not None
    owner, _, leaf = str(node.target).rpartition(".")
    holder = module.get_submodule(owner)
    if leaf in holder._parameters:
        raise LookupError(node.name)
    return getattr(holder, leaf)

"""Indices given as tensors: constant ones move, those that come from data hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.structure.axes import Ids
from secateur.structure.constants import is_mutating
from secateur.structure.rules.movement import replaced
from secateur.structure.tracer import Count, Tracer, rule
from secateur.structure.values import Value, above, result_shape

aten = torch.ops.aten


@rule(aten.index_select)
def index_select(tracer: Tracer, node: fx.Node, x: Value, dim: int, index: Any) -> Value:
    """Rows chosen by a constant tensor move; rows chosen by data stay."""
    dim %= len(x)
    chosen = constant_of(node.args[2], node)
    if chosen is None and _ties(tracer, x[dim], node.args[2]):
        return replaced(x, dim, np.zeros(result_shape(node)[dim], np.int64))
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
    chosen = constant_of(operands[first], node) if len(indexed) == 1 else None
    chooser = operands[first]
    mask = chooser.meta["val"] if isinstance(chooser, fx.Node) else None
    unknown = chosen is None or chosen.ndim > 1
    if len(indexed) == 1 and mask is not None and mask.dtype == torch.bool and unknown:
        return _masked(tracer, x, first, mask.dim(), shape[first])
    if chosen is not None and chosen.ndim == 1 and x[first].any():
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen)
        chosen = chosen % len(x[first])
        tracer.counts.append(
            Count(node, "indices", np.abs(x[first]), first, kind="lookup", chosen=chosen)
        )
        middle = [x[first][chosen]]
    elif len(indexed) == 1 and _ties(tracer, x[first], chooser):
        middle = [np.zeros(size, np.int64) for size in shape[first : first + width]]
    else:
        for d in indexed:
            tracer.pin(x[d], "indices are chosen by data")
            _hold(tracer, operands[d])
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


def _ties(tracer: Tracer, ids: Ids, operand: Any) -> bool:
    """Whether it is known that an operand holds places in this very dimension."""
    places = tracer.pointed(operand)
    if places is None or len(places) != len(ids):
        _hold(tracer, operand)
        return False
    tracer.axes.same(ids, places)
    return True


def _hold(tracer: Tracer, operand: Any) -> None:
    places = tracer.pointed(operand)
    if places is not None:
        tracer.pin(places, "indices are chosen by data")


def _masked(tracer: Tracer, x: Value, first: int, dims: int, count: int) -> Value:
    """x[..., mask]: the masked dimensions become one, as long as the data decide."""
    for ids in x[first : first + dims]:
        tracer.pin(ids, "indices are chosen by data")
    return Value([*x[:first], np.zeros(count, np.int64), *x[first + dims :]])


def constant_of(operand: Any, reader: fx.Node) -> np.ndarray | None:
    """What ``reader`` finds in a constant of the captured graph; None where it is not constant.

    What was written into it in place, through a view of it perhaps, before it is read is there.
    """
    if not isinstance(operand, fx.Node):
        return None
    needed = _needed(operand, reader)
    values: dict[fx.Node, Any] = {}
    for node in operand.graph.nodes:
        if node not in needed:
            continue
        if node.op == "get_attr":
            value = _attribute(node)
            if value is None:
                return None
            values[node] = value
        elif node.op == "call_function":
            args = fx.map_arg(node.args, lambda n: values[n])
            kwargs = fx.map_arg(node.kwargs, lambda n: values[n])
            assert callable(node.target)
            values[node] = node.target(*args, **kwargs)
        else:
            return None
    result = values[operand]
    return result.detach().cpu().numpy() if isinstance(result, torch.Tensor) else None


def _needed(operand: fx.Node, reader: fx.Node) -> set[fx.Node]:
    """The node, all that it is made from, and all that is written into any of it."""
    needed = {operand, *above(operand)}
    writes = []
    for node in operand.graph.nodes:
        if node is reader:
            break
        if is_mutating(node) and node not in needed:
            writes.append(node)
    grew = True
    while grew:
        grew = False
        for node in writes:
            if node not in needed and not needed.isdisjoint(_viewed(node)):
                needed |= {node, *above(node)}
                grew = True
    return needed


def _viewed(write: fx.Node) -> list[fx.Node]:
    """What an operation writes into, and what that may be a view of."""
    chain = []
    target = write.args[0] if write.args else None
    while isinstance(target, fx.Node):
        chain.append(target)
        target = target.args[0] if target.args else None
    return chain


def _attribute(node: fx.Node) -> torch.Tensor | None:
    """A copy of a buffer or of what forward made; None for a parameter, which training moves."""
    module = node.graph.owning_module
    assert module is not None
    owner, _, leaf = str(node.target).rpartition(".")
    holder = module.get_submodule(owner)
    value = None if leaf in holder._parameters else getattr(holder, leaf)
    return value.detach().clone() if isinstance(value, torch.Tensor) else None

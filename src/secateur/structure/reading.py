"""Read a captured graph into the axes of a tracer: dispatch every node to its rule."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.structure.boundary import flat_outputs
from secateur.structure.capture import Captured
from secateur.structure.composites import is_pointwise
from secateur.structure.constants import constant_nodes
from secateur.structure.positions import follow
from secateur.structure.tracer import RULES, Rule, Tracer, whole
from secateur.structure.unread import hold_unread
from secateur.structure.values import Value, fits, hint, holds_tensor, sizes_of

ZEROS = frozenset({torch.ops.aten.zeros.default, torch.ops.aten.zeros_like.default})


def read(tracer: Tracer, captured: Captured) -> None:
    """Read one captured graph."""
    known = tracer.tensors.keys() | tracer.aliases.keys()
    constant = constant_nodes(captured.module.graph, known)
    tracer.inputs = [n for n in captured.module.graph.nodes if n.op == "placeholder"]
    for node in captured.module.graph.nodes:
        tracer.axes.origin = len(tracer.origins)
        tracer.origins.append(node)
        if node in constant:
            continue
        for operand in node.all_input_nodes:
            if operand in constant and operand not in tracer.values:
                _meet_constant(tracer, operand, constant)
        tracer.values[node] = _read(tracer, node, captured)
        follow(tracer, node)
    hold_unread(tracer, captured.module.graph)


def _input(tracer: Tracer, node: fx.Node) -> Value:
    """Zeros, of which nothing leaves; fresh indices where the boundary is open."""
    place = tracer.inputs.index(node)
    return Value(
        tracer.axes.fresh(size) if tracer.boundary.frees_input(place, dim) else np.zeros(size, int)
        for dim, size in enumerate(sizes_of(node.meta["val"]))
    )


def _meet_constant(tracer: Tracer, node: fx.Node, constant: set[fx.Node]) -> None:
    """A constant enters the computation: fresh ids, and zero only where all of it is."""
    result = node.meta.get("val")
    zero = node.target in ZEROS and not constant.intersection(node.users)  # nor written to
    if isinstance(result, (list, tuple)):
        value: Any = [_constant(tracer, item, zero) for item in result]
    else:
        value = _constant(tracer, result, zero)
    tracer.values[node] = value
    if isinstance(value, Value):
        tracer.constants[node] = value


def _constant(tracer: Tracer, result: Any, zero: bool) -> Any:
    if not isinstance(result, torch.Tensor):
        return result
    sign = 1 if zero else -1
    return Value(sign * tracer.axes.fresh(size) for size in sizes_of(result))


def _read(tracer: Tracer, node: fx.Node, captured: Captured) -> Any:
    result = node.meta.get("val")
    if node.op == "placeholder":
        return _input(tracer, node) if isinstance(result, torch.Tensor) else None
    if node.op == "get_attr":
        name = str(node.target)
        name = tracer.aliases.get(name, name)
        if name in tracer.tensors:
            tracer.used.add(name)
            return tracer.tensors[name]
        return None
    if node.op == "output":
        for place, operand in enumerate(flat_outputs(captured.module.graph)):
            value = tracer.values.get(operand)
            in_cache = place < len(captured.caches) and captured.caches[place]
            for dim, ids in enumerate(value if isinstance(value, Value) else ()):
                if not in_cache and not tracer.boundary.frees_output(place, dim):
                    tracer.pin(ids, "it is an output of the model")
        return None
    if node.op != "call_function":
        return _unknown(tracer, node, "a call that is not an operation")
    operation = getattr(node.target, "overloadpacket", node.target)
    args = fx.map_arg(node.args, partial(_operand, tracer))
    kwargs = fx.map_arg(node.kwargs, partial(_operand, tracer))
    function = RULES.get(operation) or RULES.get(str(operation))
    if function is None and is_pointwise(node.target):
        function = RULES["pointwise"]
    if function is None:
        if result is not None and not holds_tensor(result):
            return None
        if not any(_may_lose(tracer, n) for n in node.all_input_nodes):
            return whole(result)
        return _unknown(tracer, node, "no rule for this operation")
    return _by_rule(tracer, function, node, args, kwargs)


def _by_rule(tracer: Tracer, function: Rule, node: fx.Node, args: Any, kwargs: Any) -> Any:
    """Apply a rule; one that does not understand the call counts as missing, and is reported.

    What it stated before it failed stays: more facts only hold more back.
    """
    counts = len(tracer.counts)
    try:
        result = function(tracer, node, *args, **kwargs)
        mismatch = not fits(result, node.meta.get("val"))
    except (TypeError, ValueError, LookupError, AssertionError, StopIteration) as error:
        del tracer.counts[counts:]
        return _unknown(tracer, node, f"its rule does not understand this call ({error!r})")
    if mismatch:
        del tracer.counts[counts:]
        return _unknown(tracer, node, "its rule gives another shape than the operation")
    if isinstance(result, list):
        return [_without_lone(tracer, part) for part in result]
    return _without_lone(tracer, result)


def _without_lone(tracer: Tracer, value: Any) -> Any:
    """A dimension cut down to one index: without it nothing would be left, so it stays."""
    if not isinstance(value, Value) or not any(len(ids) == 1 and ids[0] for ids in value):
        return value
    for ids in value:
        if len(ids) == 1:
            tracer.pin(ids, "it is used by itself")
    return Value(np.zeros(1, np.int64) if len(ids) == 1 else ids for ids in value)


def _operand(tracer: Tracer, node: fx.Node) -> Any:
    value = tracer.values.get(node)
    if value is not None:
        return value
    result = node.meta.get("val")
    return hint(result) if isinstance(result, (torch.SymInt, int)) else result


def _unknown(tracer: Tracer, node: fx.Node, reason: str) -> Any:
    """Pin all that an operation touches; a missing rule costs compression, nothing else."""
    tracer.unknown[node] = reason
    return tracer.hold(node, reason)


def _may_lose(tracer: Tracer, node: fx.Node) -> bool:
    """Whether anything of a node's result could leave."""
    value = tracer.values.get(node)
    return any(
        isinstance(part, Value) and any(ids.any() for ids in part)
        for part in (value if isinstance(value, list) else [value])
    )


def getitem(tracer: Tracer, node: fx.Node, value: Any, index: Any) -> Any:
    """An element of an operation with several results."""
    return value[index] if isinstance(value, list) else None


RULES[operator.getitem] = getitem

"""Operations without a rule that torch itself writes as others are taken apart into these."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import make_fx

import secateur.structure.rules  # noqa: F401  (registers the rules)
from secateur.structure.tracer import RULES
from secateur.structure.values import holds_tensor

aten = torch.ops.aten

# What reads sizes, and what makes a scalar: they touch no dimension.
_PLAIN = frozenset(
    {operator.getitem, aten.sym_size.int, aten.size.default, aten.scalar_tensor.default}
)


def take_apart(module: fx.GraphModule) -> None:
    """Replace every composite operation without a rule, where all of its parts have one.

    What has a rule as a whole stays whole: convolutions, attention, norms.
    """
    graph = module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or _has_rule(node.target) or not _is_composite(node.target):
            continue
        inner = _parts(node)
        if inner is None:
            continue
        places = [n for n in inner.nodes if n.op == "placeholder"]
        copies: dict[fx.Node, Any] = dict(zip(places, node.all_input_nodes, strict=True))
        with graph.inserting_before(node):
            result = graph.graph_copy(inner, copies)
        for part, copy in copies.items():
            if part.op == "call_function":
                copy.meta = {**node.meta, "val": part.meta.get("val")}
        if isinstance(result, fx.Node):
            node.replace_all_uses_with(result)
        else:
            for user in list(node.users):
                user.replace_all_uses_with(result[user.args[1]])  # type: ignore[index]
                graph.erase_node(user)
        graph.erase_node(node)
    module.recompile()


def _has_rule(target: Any) -> bool:
    operation = getattr(target, "overloadpacket", target)
    return operation in RULES or str(operation) in RULES or is_pointwise(target)


def is_pointwise(target: Any) -> bool:
    """Whether torch itself tags an operation as point-wise."""
    return isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags


def _is_composite(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and bool(
        torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), "CompositeImplicitAutograd")
    )


def _parts(node: fx.Node) -> fx.Graph | None:
    """The graph of a node's operation over its tensors; None where it cannot be read.

    None too where taking it apart would settle a size that is free, as that of the batch.
    """
    operands = node.all_input_nodes
    values = [operand.meta.get("val") for operand in operands]
    fakes = [value for value in values if isinstance(value, FakeTensor)]
    if not fakes or len(fakes) < len(values):
        return None
    several = not isinstance(node.meta.get("val"), torch.Tensor)
    if several and any(user.target is not operator.getitem for user in node.users):
        return None

    def call(*tensors: torch.Tensor) -> Any:
        given = dict(zip(operands, tensors, strict=True))
        args = fx.map_arg(node.args, lambda n: given[n])
        kwargs = fx.map_arg(node.kwargs, lambda n: given[n])
        assert callable(node.target)
        return node.target(*args, **kwargs)

    sizes = fakes[0].fake_mode.shape_env
    settled = len(sizes.replacements) if sizes is not None else 0
    try:
        with fakes[0].fake_mode, enable_python_dispatcher(), torch.enable_grad():
            inner = make_fx(call)(*values).graph
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return None  # the operation stays whole, and is reported as one without a rule
    if sizes is not None and len(sizes.replacements) != settled:
        return None
    inner.eliminate_dead_code()
    return inner if _all_have_rules(inner.nodes) else None


def _all_have_rules(nodes: Iterable[fx.Node]) -> bool:
    return all(
        node.op in ("placeholder", "output")
        or (
            node.op == "call_function"
            and (
                node.target in _PLAIN
                or _has_rule(node.target)
                or not holds_tensor(node.meta.get("val"))
            )
        )
        for node in nodes
    )

"""Which nodes of a graph depend on nothing but sizes."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import fx

from secateur.structure.values import holds_tensor

aten = torch.ops.aten

# What has a rule of its own and makes a constant of given sizes.
_SIZED = frozenset({
    aten.expand.default, aten.repeat.default, aten.zeros.default, aten.ones.default,
    aten.full.default, aten.new_zeros.default, aten.new_ones.default, aten.new_full.default,
})  # fmt: skip


def is_mutating(node: fx.Node) -> bool:
    """Whether a node writes into one of its operands."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def is_written(node: fx.Node) -> bool:
    """Whether some operation writes into a node's result, or into a view of it."""
    for user in node.users:
        if not user.args or user.args[0] is not node:
            continue
        if is_mutating(user):
            return True
        schema = getattr(user.target, "_schema", None)
        views = schema is None or any(result.alias_info for result in schema.returns)
        if views and is_written(user):
            return True
    return False


def may_copy(view: fx.Node) -> bool:
    """Whether a view could as well be a copy: nobody writes into what it is a view of."""
    base = view
    while base.args and isinstance(base.args[0], fx.Node) and _is_view(base):
        base = base.args[0]
    return not is_written(base)


def _is_view(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(result.alias_info for result in schema.returns)


def constant_nodes(graph: fx.Graph, known: Collection[str]) -> set[fx.Node]:
    """Nodes whose value depends on no parameter, buffer or input (sizes of the batch aside).

    ``known``: names of the model's parameters and buffers. A constant that is written from a
    non-constant is none, nor is what it is a view of, nor one whose dimension is the batch times
    something that may leave. Nor is a choice of rows (``one_hot``): other inputs choose others.
    """
    held: set[fx.Node] = set()
    while True:
        constant: set[fx.Node] = set()
        grew = False
        for node in graph.nodes:
            if node.op == "get_attr":
                # Tensors that forward itself made (torch.tensor(...)) are lifted by export.
                is_constant = holds_tensor(node.meta.get("val")) and str(node.target) not in known
            elif (
                node.op == "call_function"
                and node not in held
                and node.target is not aten.one_hot.default
                and not _merges_batch(node)
            ):
                is_constant = all(
                    n in constant or not holds_tensor(n.meta.get("val"))
                    for n in node.all_input_nodes
                ) and holds_tensor(node.meta.get("val"))
            else:
                is_constant = False
            if is_constant:
                constant.add(node)
            elif node.op == "call_function" and is_mutating(node):
                target = node.args[0] if node.args else None
                while isinstance(target, fx.Node) and target in constant:
                    held.add(target)
                    grew = True
                    target = target.args[0] if target.args else None
        if not grew:
            return constant


def _merges_batch(node: fx.Node) -> bool:
    result = node.meta.get("val")
    return (
        node.target in _SIZED
        and isinstance(result, torch.Tensor)
        and any(isinstance(s, torch.SymInt) and not s.node.expr.is_symbol for s in result.shape)
    )

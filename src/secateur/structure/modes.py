"""What code does under ``no_grad`` or ``autocast``, which export wraps into graphs of their own."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

_WITH_GRAD_MODE = torch.ops.higher_order.wrap_with_set_grad_enabled
_WITH_AUTOCAST = torch.ops.higher_order.wrap_with_autocast


def inline_modes(module: fx.GraphModule) -> None:
    """Replace the calls of wrapped graphs by their bodies between two switches."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.target is _WITH_GRAD_MODE:
            enabled, body, *operands = node.args
            with graph.inserting_before(node):
                graph.call_function(torch._C._set_grad_enabled, (enabled,))
                result = _copied_body(module, body, operands)
                graph.call_function(torch._C._set_grad_enabled, (not enabled,))
        elif node.target is _WITH_AUTOCAST:
            device, dtype, enabled, cached, body, *operands = node.args
            with graph.inserting_before(node):
                settings = (device, dtype, enabled, cached)
                mode = graph.call_function(torch.amp.autocast_mode._enter_autocast, settings)
                result = _copied_body(module, body, operands)
                graph.call_function(torch.amp.autocast_mode._exit_autocast, (mode,))
        else:
            continue
        for user in list(node.users):
            if user.target is operator.getitem:
                user.replace_all_uses_with(result[user.args[1]])
                graph.erase_node(user)
        graph.erase_node(node)
    graph.eliminate_dead_code()
    module.recompile()


def _copied_body(module: fx.GraphModule, body: fx.Node, operands: list[Any]) -> Any:
    """Copy a subgraph to the insertion point of the graph; returns its output."""
    inside = module.get_submodule(str(body.target))
    assert isinstance(inside, fx.GraphModule)
    inline_modes(inside)
    places = [n for n in inside.graph.nodes if n.op == "placeholder"]
    mapping: dict[fx.Node, Any] = dict(zip(places, operands, strict=True))
    for inner in inside.graph.nodes:
        if inner.op == "output":
            return fx.map_arg(inner.args[0], lambda n: mapping[n])
        if inner.op != "placeholder":
            mapping[inner] = module.graph.node_copy(inner, lambda n: mapping[n])
    raise AssertionError("a graph without output")

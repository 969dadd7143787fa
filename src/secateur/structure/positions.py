"""Integers that are places in a dimension: what ``topk`` and ``argmax`` return.

Where indices of the dimension leave, places become places among the survivors. That is right as
long as they are moved about, and then choose in a dimension whose indices leave along with those:
rows of experts, of a table, of what is scattered into. Whatever else reads them holds it.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.structure.axes import Ids
from secateur.structure.tracer import RULES, Positions, Tracer
from secateur.structure.values import above, sizes_of

aten = torch.ops.aten
_MOVES_LIKE = (aten.permute, aten.view)  # and all operations that share a rule with these
_MOVES = frozenset({
    aten.expand, aten.expand_as, aten.clone, aten.contiguous, aten.detach, aten.alias, aten.to,
    aten._to_copy, aten.slice, aten.select, aten.narrow, aten.index, aten.index_select, aten.gather,
})  # fmt: skip
# Operation -> the argument that may hold places; its rule says what they are places in.
_CHOOSES: dict[Any, int] = {
    aten.gather: 2, aten.scatter: 2, aten.scatter_: 2, aten.scatter_add: 2, aten.scatter_add_: 2,
    aten.embedding: 1, aten.one_hot: 0, aten.histc: 0, aten.index: 1, aten.index_select: 2,
}  # fmt: skip
_JOINS = frozenset({aten.cat, aten.concat, aten.concatenate, aten.stack})
_WRITES = frozenset({aten.scatter, aten.scatter_})
_COMPARES = frozenset({aten.eq, aten.ne, aten.not_equal})
_SILENT = frozenset({aten._assert_tensor_metadata, aten.sym_size})


def follow(tracer: Tracer, node: fx.Node) -> None:
    """Which results of a node are places, after its rule; what reads them otherwise is held."""
    for operand in node.all_input_nodes:
        known = tracer.positions.get(operand)
        if known is None:
            continue
        operation: Any = getattr(node.target, "overloadpacket", node.target)
        first = bool(node.args) and node.args[0] is operand
        once = list(_operands(node)).count(operand) == 1
        if operation is operator.getitem:
            if node.args[1] == known.part:
                tracer.positions[node] = Positions(known.ids)
        elif operation in _SILENT:
            continue
        elif once and first and _moves(node, operation):
            tracer.positions[node] = Positions(known.ids)
        elif once and first and operation is aten.sort:
            tracer.positions[node] = Positions(known.ids, 0)
        elif operation in _JOINS and _joined(tracer, node):
            tracer.positions[node] = Positions(known.ids)
        elif operation in _COMPARES and len(node.all_input_nodes) == 2 and _joined(tracer, node):
            continue
        elif not (once and _chooses(node, operand, _CHOOSES.get(operation))):
            tracer.pin(known.ids, "the places of what was chosen are read")


def taken(tracer: Tracer, node: fx.Node, ids: Ids) -> int:
    """How many of ``ids`` were chosen before and put out of the question, by minus infinity."""
    count = 0
    for earlier in above(node):
        if getattr(earlier.target, "overloadpacket", None) not in _WRITES:
            continue
        _, dim, index, value = earlier.args[:4]
        places = tracer.pointed(index)
        if places is None or not np.array_equal(places, np.abs(ids)) or value != -math.inf:
            continue
        assert isinstance(index, fx.Node) and isinstance(dim, int)
        count += sizes_of(index.meta["val"])[dim]
    return count


def _moves(node: fx.Node, operation: Any) -> bool:
    """Whether elements are moved, and stay numbers: of truth values nothing could be renumbered."""
    result = node.meta.get("val")
    if isinstance(result, torch.Tensor) and result.dtype == torch.bool:
        return False
    return operation in _MOVES or RULES.get(operation) in {RULES[like] for like in _MOVES_LIKE}


def _joined(tracer: Tracer, node: fx.Node) -> bool:
    """Whether all that is joined are places, which then are in the same dimension."""
    found = [tracer.pointed(operand) for operand in node.all_input_nodes]
    known = [ids for ids in found if ids is not None]
    if len(known) < len(found) or len({len(ids) for ids in known}) > 1:
        return False
    for other in known[1:]:
        tracer.axes.same(known[0], other)
    return True


def _chooses(node: fx.Node, operand: fx.Node, place: int | None) -> bool:
    if place is None or place >= len(node.args):
        return False
    argument = node.args[place]
    return operand in argument if isinstance(argument, (list, tuple)) else argument is operand


def _operands(node: fx.Node) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.map_arg((node.args, node.kwargs), found.append)
    return found

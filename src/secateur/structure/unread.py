"""Indices of parameters and buffers that no operation reads on the example inputs.

A slice of a table of positions takes as many rows as these inputs are long. The rest is not read
here, and longer inputs read it: it is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.structure.tracer import RULES, Tracer
from secateur.structure.values import Value

aten = torch.ops.aten
_PICK = frozenset(
    {aten.slice, aten.narrow, aten.select, aten.index, aten.index_select, aten.split, aten.chunk,
     aten.split_with_sizes, aten.tensor_split, aten.unsafe_chunk, aten.unsafe_split}
)  # fmt: skip
_MOVE = frozenset(
    {aten.expand, aten.expand_as, aten.clone, aten.contiguous, aten.detach, aten.alias, aten.to,
     aten._to_copy}
)  # fmt: skip
_MOVES_LIKE = (aten.permute, aten.view)  # and all operations that share a rule with these


def hold_unread(tracer: Tracer, graph: fx.Graph) -> None:
    """Pin what is dropped before any operation but a choice or a move has seen it."""
    moves = {RULES[operation] for operation in _MOVES_LIKE}
    read = np.zeros(tracer.axes.count, bool)
    kept = np.zeros(tracer.axes.count, bool)  # by the node at hand
    dropped_at = np.full(tracer.axes.count, -1)
    names: set[str] = set()
    for number, node in enumerate(tracer.origins):
        if node is None or node.graph is not graph:
            continue
        if node.op == "get_attr":
            names.add(tracer.aliases.get(str(node.target), str(node.target)))
            continue
        operation: Any = getattr(node.target, "overloadpacket", node.target)
        seen = _ids(tracer, node.all_input_nodes)
        chosen = any(operand in tracer.positions for operand in node.all_input_nodes)
        if operation in _PICK and not chosen:  # by data: other inputs read the others
            dropped_at[seen] = number
            seen = _ids(tracer, [n for n in node.all_input_nodes if n is not node.args[0]])
        elif operation in _MOVE or RULES.get(operation) in moves:
            result = _ids(tracer, [node])
            kept[result] = True
            seen = seen[~kept[seen]]
            kept[result] = False
        elif not _is_element(node):
            read[seen] = True
            continue
        else:
            continue
        read[seen] = True
    for name in names & tracer.tensors.keys():
        for ids in tracer.tensors[name]:
            missed = np.abs(ids)[~read[np.abs(ids)]]
            for number in np.unique(dropped_at[missed]):
                if number >= 0:
                    tracer.axes.origin = int(number)
                    tracer.pin(missed[dropped_at[missed] == number], "these inputs do not read it")


def _ids(tracer: Tracer, nodes: list[fx.Node]) -> np.ndarray:
    found = [np.abs(ids) for node in nodes for ids in _vectors(tracer.values.get(node))]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _vectors(value: Any) -> Iterator[np.ndarray]:
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, Value):
            yield from part


def _is_element(node: fx.Node) -> bool:
    """One of the results of an operation with several."""
    return getattr(node.target, "__name__", "") == "getitem"

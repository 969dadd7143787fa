"""Whole numbers that forward reads from its inputs, as the largest of several lengths.

export cannot follow code that goes by them. Told the numbers of the example it can, and asserts
them in the graph. That is right for sizes; code that goes by truths, or by how many values pass a
test, has other paths, of which nothing would be known.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from secateur.structure.values import above

aten = torch.ops.aten

_READS = frozenset({aten.item.default, aten._local_scalar_dense.default})
_WHOLE = frozenset({torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8})


def reads(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that make a number of a tensor."""
    return [node for node in graph.nodes if node.target in _READS]


def only_counts(graph: fx.Graph) -> bool:
    """Whether all that the graph reads are whole numbers of its inputs, and no shape depends on
    values. A counter that is a buffer goes on: its number of today is nothing to keep."""
    whole = all(
        _type(node.args[0]) in _WHOLE and all(n.op != "get_attr" for n in above(node))
        for node in reads(graph)
    )
    return whole and not any(
        torch.Tag.dynamic_output_shape in node.target.tags or _chooses(node)
        for node in graph.nodes
        if isinstance(node.target, torch._ops.OpOverload)
    )


def _chooses(node: fx.Node) -> bool:
    """x[mask]: as many as are true."""
    masks = node.args[1] if node.target is aten.index.Tensor else ()
    return isinstance(masks, (list, tuple)) and any(_type(mask) == torch.bool for mask in masks)


def _type(operand: Any) -> torch.dtype | None:
    value = operand.meta.get("val") if isinstance(operand, fx.Node) else None
    return value.dtype if isinstance(value, torch.Tensor) else None

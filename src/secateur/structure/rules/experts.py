"""Products of tokens with the matrices of their experts."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from secateur.structure.tracer import Tracer, rule
from secateur.structure.values import Value

aten = torch.ops.aten


@rule(aten._grouped_mm, "transformers.grouped_mm_fallback")
def grouped_mm(
    tracer: Tracer, node: fx.Node, x: Value, weight: Value, ends: Any = None, *rest: Any,
    **named: Any,
) -> Value:  # fmt: skip
    """x [tokens, in] sorted by expert, weight [experts, in, out] -> [tokens, out].

    ends: where the rows of each expert end. Experts stay, unless it is known which entry of
    ``ends`` is whose (see ``positions.py``): one that no token goes to takes no rows.
    """
    if len(x) != 2 or len(weight) != 3:
        raise ValueError("only tokens by experts")
    tracer.contract(node, x[1], weight[1], weight=True)
    if isinstance(ends, Value) and ends[0].any() and len(ends[0]) == len(weight[0]):
        tracer.axes.same(ends[0], weight[0])
    else:
        tracer.pin(weight[0], "the data choose the expert")
    tracer.produce(weight[2])
    tracer.work(node, 1, [x[0], weight[1], weight[2]])
    return Value([x[0], weight[2]])

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

    Which expert a token goes to is data: experts stay.
    """
    if len(x) != 2 or len(weight) != 3:
        raise ValueError("only tokens by experts")
    tracer.contract(node, x[1], weight[1], weight=True)
    tracer.pin(weight[0], "the data choose the expert")
    tracer.produce(weight[2])
    tracer.work(node, 1, [x[0], weight[1], weight[2]])
    return Value([x[0], weight[2]])

"""What stands for a tensor while a graph is read, and how it compares with the real one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.structure.axes import Ids


class Value(tuple[Ids, ...]):
    """What stands for a tensor while tracing: one id vector per dimension."""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(ids) for ids in self)


# Stands for a size that only the data decide. Nothing leaves such a dimension, so that any number
# does; this one can be divided by most that code divides by.
UNKNOWN_SIZE = 12


def hint(size: Any) -> int:
    """The number behind a size, symbolic or not."""
    if not isinstance(size, torch.SymInt):
        return int(size)
    if size.node.hint is not None:
        return int(size.node.hint)
    known = size.node.shape_env.backed_var_to_val
    symbols = size.node.expr.free_symbols
    return int(size.node.expr.subs({s: known.get(s, UNKNOWN_SIZE) for s in symbols}))


def sizes_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """Shape of a fake tensor with the symbolic sizes at their captured numbers."""
    return tuple(hint(size) for size in tensor.shape)


def result_shape(node: fx.Node) -> tuple[int, ...]:
    """Shape of a node's single tensor result."""
    return sizes_of(node.meta["val"])


def zeros(tensor: torch.Tensor) -> Value:
    """A value of which nothing leaves."""
    return Value(np.zeros(size, np.int64) for size in sizes_of(tensor))


def fits(value: Any, result: Any) -> bool:
    """Whether values have the shapes of a node's results."""
    if isinstance(result, torch.Tensor):
        return isinstance(value, Value) and value.shape == sizes_of(result)
    if isinstance(result, (list, tuple)) and isinstance(value, list):
        pairs = zip(value, result, strict=False)
        return all(v is None or not isinstance(r, torch.Tensor) or fits(v, r) for v, r in pairs)
    return True


def holds_tensor(result: Any) -> bool:
    """Whether a node's result is or contains a tensor."""
    if isinstance(result, (list, tuple)):
        return any(holds_tensor(item) for item in result)
    return isinstance(result, torch.Tensor)


def above(node: fx.Node) -> set[fx.Node]:
    """All that a node is made from."""
    seen: set[fx.Node] = set()
    queue = [node]
    while queue:
        for operand in queue.pop().all_input_nodes:
            if operand not in seen:
                seen.add(operand)
                queue.append(operand)
    return seen

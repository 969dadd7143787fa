"""Keep the implicit scale of attention: fold sqrt(d'/d) into the weights that make the query."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from secateur.errors import SurgeryError
from secateur.structure.capture import source_line
from secateur.structure.rules.movement import permuted
from secateur.structure.rules.view import view
from secateur.structure.structure import Structure
from secateur.structure.tracer import RULES
from secateur.structure.values import hint, sizes_of

aten = torch.ops.aten

# Rows of a product that only move on their way to the query can be scaled where they are made.
_MOVES = frozenset(
    operation for operation, function in RULES.items() if function in (permuted, view)
) | {aten.select, aten.slice, aten.unbind, aten.chunk, aten.split, aten.split_with_sizes,
     aten.contiguous, aten.clone}  # fmt: skip


def query_rows(structure: Structure, node: fx.Node) -> dict[str, np.ndarray]:
    """Rows of dimension 0 of the tensors that make the query of an attention node, by name.

    Errors: SurgeryError where something else than a linear layer makes it.
    """
    steps: list[fx.Node] = []
    current = node.args[0]
    while isinstance(current, fx.Node) and current.target is not aten.linear.default:
        operation = getattr(current.target, "overloadpacket", current.target)
        if current.op != "call_function" or not (
            operation in _MOVES or operation is operator.getitem
        ):
            raise SurgeryError(
                "module surgery cannot keep the scale of the attention at "
                f"{source_line(node) or node.name}: {current.target} stands between it and the "
                "layer that makes the query; use method='graph'"
            )
        steps.append(current)
        current = current.args[0]
    operands = current.args[1:3] if isinstance(current, fx.Node) else ()
    layer = [n for n in operands if isinstance(n, fx.Node)]
    if not isinstance(current, fx.Node) or any(n.op != "get_attr" for n in layer):
        raise SurgeryError(
            f"module surgery cannot keep the scale of the attention at {source_line(node)}: its "
            "query is not made by a layer with a weight of its own; use method='graph'"
        )
    width = int(current.meta["val"].shape[-1])
    shape = sizes_of(current.meta["val"])
    label = torch.arange(width).expand(shape)
    values: dict[fx.Node, Any] = {current: label}

    def operand(n: fx.Node) -> Any:
        if n in values:
            return values[n]
        size = n.meta.get("val")
        return hint(size) if isinstance(size, torch.SymInt) else size

    for step in reversed(steps):
        args = fx.map_arg(step.args, operand)
        kwargs = fx.map_arg(step.kwargs, operand)
        # labels are laid out in memory as they come, and a view asks for more
        target = aten.reshape.default if step.target is aten.view.default else step.target
        assert callable(target)
        values[step] = target(*args, **kwargs)
    query = node.args[0]
    assert isinstance(query, fx.Node)
    rows = np.unique(values[query].numpy())
    names = [str(n.target) for n in layer]
    return {structure.aliases.get(name, name): rows for name in names}


def fold_scales(
    model: nn.Module, structure: Structure, gone: np.ndarray
) -> tuple[tuple[fx.Node, ...], dict[str, tuple[float, ...]]]:
    """Multiply the query's rows of a sliced model.

    gone: bool [ids]. Returns the attention nodes that were folded, and the factor of every row
    of the tensors that were multiplied. Errors: SurgeryError where the scale cannot be folded.
    """
    folded: list[fx.Node] = []
    factors: dict[tuple[str, int], float] = {}
    for node in structure.captured.module.graph.nodes:
        if node.target is not aten.scaled_dot_product_attention.default:
            continue
        width = np.abs(structure.tracer.values[node.args[0]][-1])
        left = int((~gone[width]).sum())
        if node.kwargs.get("scale") is not None or left == len(width):
            continue
        factor = float(np.sqrt(left / len(width)))
        for name, rows in query_rows(structure, node).items():
            for row in rows:
                if factors.setdefault((name, int(row)), factor) != factor:
                    raise SurgeryError(
                        f"two attentions of different widths share '{name}'; use method='graph'"
                    )
        folded.append(node)
    scales: dict[str, tuple[float, ...]] = {}
    tensors = dict(model.named_parameters())
    for name in {name for name, _ in factors}:
        ids = np.abs(structure.tracer.tensors[name][0])
        scale = np.array([factors.get((name, row), 1.0) for row in range(len(ids))])
        tensor = tensors[name]
        scales[name] = tuple(scale[~gone[ids]].tolist())
        column = torch.tensor(scales[name], dtype=torch.float64).to(tensor)
        with torch.no_grad():
            tensor.mul_(column.reshape(-1, *[1] * (tensor.dim() - 1)))
    return tuple(folded), scales

"""Keep the scale of attention, which a class takes from the width of its heads.

A sliced class computes 1/sqrt(d') where the dense one had 1/sqrt(d). The rows of the layers that
make the query are multiplied by what is missing, so that the class itself can stay as it is.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.errors import SurgeryError
from secateur.structure.capture import source_line
from secateur.structure.rules.movement import permuted
from secateur.structure.rules.view import view
from secateur.structure.structure import Structure
from secateur.structure.tracer import RULES
from secateur.structure.values import hint, sizes_of

aten = torch.ops.aten

# Rows of a product that only move on their way can be scaled where they are made.
_MOVES = frozenset(
    operation for operation, function in RULES.items() if function in (permuted, view)
) | {aten.select, aten.slice, aten.unbind, aten.chunk, aten.split, aten.split_with_sizes,
     aten.contiguous, aten.clone, aten.to, aten._to_copy, aten.neg, aten.expand, aten.roll,
     operator.getitem}  # fmt: skip
_SUMS = frozenset({aten.add, aten.sub, aten.cat, aten.stack})
_PRODUCTS = frozenset({aten.mul, aten.div, aten.matmul, aten.bmm})
_CLOSED = frozenset({aten.matmul, aten.bmm})
_PIECES = frozenset({aten.chunk, aten.split, aten.split_with_sizes})
_NO_LAYER = "its query is not made by a layer with a weight of its own"
_LAYERS = {aten.linear: (1, 2), aten.layer_norm: (2, 3), aten.rms_norm: (2,)}


@dataclass(frozen=True, eq=False)
class Made:
    """What a parameter contributes to a value: the weight of a layer, its bias, or a piece.

    tensor: its name; "" for a constant, of which no row can be multiplied.
    labels: which row of it each entry of the value comes from, -1 for none of them; once
            they were summed over, just all of them.
    closed: whether they were summed over.
    """

    tensor: str
    labels: torch.Tensor
    closed: bool = False


class _Dead(Exception):
    """No layer's rows could be scaled in the stead of a value; the words say why."""


def row_factors(
    structure: Structure, gone: np.ndarray, wanted: Mapping[fx.Node, float]
) -> dict[str, tuple[float, ...]]:
    """What to multiply rows by so that the first operand of each node grows by a factor.

    gone: bool [ids]. wanted: node of the captured graph -> factor. Returns the factor of every
    surviving row by parameter. Errors: SurgeryError where no rows could be multiplied.
    """
    factors: dict[tuple[str, int], float] = {}
    for node, factor in wanted.items():
        for name, rows in _rows_of_query(structure, node):
            for row in rows:
                if factors.setdefault((name, int(row)), factor) != factor:
                    raise SurgeryError(
                        f"two attentions of different widths share '{name}'; use method='graph'"
                    )
    scales: dict[str, tuple[float, ...]] = {}
    for name in {name for name, _ in factors}:
        ids = np.abs(structure.tracer.tensors[name][0])
        scale = np.array([factors.get((name, row), 1.0) for row in range(len(ids))])
        scales[name] = tuple(scale[~gone[ids]].tolist())
    return scales


def multiply_rows(tensor: torch.Tensor, factors: Sequence[float]) -> None:
    """In place, one factor for each index of dimension 0."""
    column = torch.tensor(factors, dtype=torch.float64).to(tensor)
    with torch.no_grad():
        tensor.mul_(column.reshape(-1, *[1] * (tensor.dim() - 1)))


def implicit_scales(structure: Structure, gone: np.ndarray) -> dict[fx.Node, float]:
    """Attention nodes without a scale of their own that lose width: sqrt(d'/d)."""
    wanted: dict[fx.Node, float] = {}
    for node in structure.captured.module.graph.nodes:
        if node.target is not aten.scaled_dot_product_attention.default:
            continue
        width = np.abs(structure.tracer.values[node.args[0]][-1])
        left = int((~gone[width]).sum())
        if node.kwargs.get("scale") is None and left < len(width):
            wanted[node] = float(np.sqrt(left / len(width)))
    return wanted


def _rows_of_query(structure: Structure, node: fx.Node) -> list[tuple[str, np.ndarray]]:
    try:
        return list(_rows(structure, node))
    except _Dead as why:
        raise SurgeryError(
            "module surgery cannot keep the scale of the attention at "
            f"{source_line(node) or node.name}: {why}; use method='graph'"
        ) from why


def _rows(structure: Structure, node: fx.Node) -> Iterable[tuple[str, np.ndarray]]:
    for part in _makers(structure, node.args[0]):
        rows = np.unique(part.labels.numpy())
        rows = rows[rows >= 0]
        if not part.tensor and len(rows):
            raise _Dead(_NO_LAYER)
        yield part.tensor, rows


def _makers(structure: Structure, node: Any) -> list[Made]:
    """The layers whose outputs a value is homogeneous in. Errors: _Dead."""
    if not isinstance(node, fx.Node) or node.op != "call_function":
        raise _Dead(_NO_LAYER)
    operation: Any = getattr(node.target, "overloadpacket", node.target)
    if operation in _LAYERS:
        return _layer(structure, node, _LAYERS[operation])
    if operation in _MOVES:
        return [_moved(node, part) for part in _makers(structure, node.args[0])]
    if operation in _SUMS:
        terms = node.args[0] if isinstance(node.args[0], (list, tuple)) else node.args[:2]
        return [
            _placed(node, place, part)
            for place, term in enumerate(terms)
            for part in _makers(structure, term)
        ]
    if operation in _PRODUCTS:
        return _of_product(structure, node, operation in _CLOSED)
    raise _Dead(f"{node.target} stands between it and the layer that makes the query")


def _layer(structure: Structure, node: fx.Node, places: tuple[int, ...]) -> list[Made]:
    operands = [node.args[place] for place in places if place < len(node.args)]
    return [
        replace(piece, labels=piece.labels.expand(sizes_of(node.meta["val"])))
        for operand in operands
        if operand is not None
        for piece in _pieces(structure, operand)
    ]


def _pieces(structure: Structure, operand: Any) -> list[Made]:
    """Parameters that a weight or bias is, or is joined from: of BEiT's biases the keys' is no
    parameter. labels: [rows of the weight]."""
    if getattr(getattr(operand, "target", None), "overloadpacket", None) is not aten.cat:
        name, rows = _rows_in_parameter(structure, operand)
        if not name:
            raise _Dead(_NO_LAYER)
        return [Made(name, rows)]
    parts, dim = operand.args[0], operand.args[1] if len(operand.args) > 1 else 0
    sizes = [sizes_of(part.meta["val"])[0] for part in parts]
    blank = torch.full((sum(sizes),), -1)
    pieces = []
    for part, start, size in zip(parts, np.cumsum([0, *sizes]).tolist(), sizes, strict=False):
        found = _rows_in_parameter(structure, part) if dim == 0 else ("", None)
        name, rows = found if found[0] else ("", range(size))
        labels = blank.clone()
        labels[start : start + size] = torch.as_tensor(rows)
        pieces.append(Made(name, labels))
    return pieces


def _rows_in_parameter(structure: Structure, node: Any) -> tuple[str, Any]:
    """Name of a parameter and its rows that a weight is, all or a piece; "" for other weights.

    Of a split the rows are a sequence of pieces.
    """
    name = _parameter(structure, node)
    if name is not None:
        return name, torch.arange(structure.shapes[name][0])
    operation: Any = getattr(getattr(node, "target", None), "overloadpacket", None)
    if operation not in _PIECES and getattr(node, "target", None) is not operator.getitem:
        return "", None
    name, rows = _rows_in_parameter(structure, node.args[0])
    if not name or node.target is operator.getitem:
        return name, rows[node.args[1]] if name else None
    if (node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)) != 0:
        return "", None
    return name, node.target(rows, *node.args[1:], **node.kwargs)


def _parameter(structure: Structure, node: Any) -> str | None:
    """Canonical name of a parameter that is used as it is."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    name = structure.aliases.get(str(node.target), str(node.target))
    return name if name in structure.shapes and name not in structure.tracer.buffers else None


def _moved(node: fx.Node, part: Made) -> Made:
    if part.closed:
        return part
    if node.target is operator.getitem:
        return replace(part, labels=part.labels[node.args[1]])  # type: ignore[index]

    def operand(n: fx.Node) -> Any:
        if n is node.args[0]:
            return part.labels
        other = n.meta.get("val")
        if isinstance(other, torch.Tensor):  # for its shape, as in reshape_as
            return torch.zeros(sizes_of(other), dtype=torch.int64)
        return hint(other) if isinstance(other, torch.SymInt) else other

    if getattr(node.target, "overloadpacket", None) in (aten.neg, aten.to, aten._to_copy):
        return part
    args, kwargs = fx.map_arg(node.args, operand), fx.map_arg(node.kwargs, operand)
    # labels are laid out in memory as they come, and a view asks for more
    target = aten.reshape.default if node.target is aten.view.default else node.target
    assert callable(target)
    return replace(part, labels=target(*args, **kwargs))


def _placed(node: fx.Node, place: int, part: Made) -> Made:
    """The labels of one term among those of a sum or a concatenation."""
    if part.closed:
        return part
    if not isinstance(node.args[0], (list, tuple)):
        return replace(part, labels=part.labels.expand(sizes_of(node.meta["val"])))
    blank = [torch.full(sizes_of(term.meta["val"]), -1) for term in node.args[0]]  # type: ignore[union-attr]
    blank[place] = part.labels
    dim = node.args[1] if len(node.args) > 1 else 0
    join = torch.stack if node.target is aten.stack.default else torch.cat
    return replace(part, labels=join(blank, dim=dim))  # type: ignore[arg-type]


def _of_product(structure: Structure, node: fx.Node, closed: bool) -> list[Made]:
    """One factor is enough; a parameter of norm weights is as good as a layer."""
    why: _Dead | None = None
    divided = getattr(node.target, "overloadpacket", None) is aten.div
    for operand in node.args[:1] if divided else node.args[:2]:
        name = _parameter(structure, operand)
        if name is not None and len(structure.shapes[name]) == 1 and not closed:
            labels = torch.arange(structure.shapes[name][0]).expand(sizes_of(node.meta["val"]))
            return [Made(name, labels)]
        try:
            made = _makers(structure, operand)
        except _Dead as error:
            why = why or error
            continue
        if closed:
            return [replace(part, labels=torch.unique(part.labels), closed=True) for part in made]
        size = sizes_of(node.meta["val"])
        return [p if p.closed else replace(p, labels=p.labels.expand(size)) for p in made]
    raise why or _Dead(_NO_LAYER)

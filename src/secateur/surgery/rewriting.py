"""Write every literal size of a captured graph anew, from the ids that survive."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.errors import PlanError
from secateur.structure.branches import NOTHING, Dropped
from secateur.structure.capture import Captured, source_line
from secateur.structure.constants import constant_nodes, is_written
from secateur.structure.structure import Structure
from secateur.structure.tracer import Count
from secateur.structure.values import Value

aten = torch.ops.aten

# Every index of what these make is like every other: a smaller one is made, not cut out.
_UNIFORM = frozenset({
    aten.zeros.default, aten.ones.default, aten.full.default,
    aten.new_zeros.default, aten.new_ones.default, aten.new_full.default,
})  # fmt: skip

# Sizes that torch infers when they are written as -1.
_INFERRED = frozenset({"size", "shape", "sizes"})


@dataclass(frozen=True, eq=False)
class Rewritten:
    """A rewritten graph.

    graph:     over the names of the dense model; it expects sliced tensors under them.
    nodes:     node of the captured graph -> node of the rewritten one.
    constants: index tensors that the rewriting brought in, by name.
    """

    graph: fx.Graph
    nodes: Mapping[fx.Node, fx.Node]
    constants: Mapping[str, torch.Tensor]


def rewrite(
    structure: Structure,
    captured: Captured,
    gone: np.ndarray,
    pure: bool = False,
    drop: Dropped = NOTHING,
) -> Rewritten:
    """Copy the captured graph with all literals as they are after the removal.

    gone: bool [ids]. pure: leave the implicit scale of attention to the new width.
    drop: whole branches that leave.
    Errors: PlanError when a mean, a maximum or another statistic is left with nothing.
    """
    source = captured.module.graph
    graph = fx.Graph()
    nodes: dict[fx.Node, Any] = {}
    output = graph.graph_copy(source, nodes)
    graph.output(output)
    constants: dict[str, torch.Tensor] = {}
    _refuse_empty_statistics(structure, source, gone)
    for node in source.nodes:
        if node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(nodes.pop(node))
    for count in structure.tracer.counts:
        if count.node.graph is source:
            _write(graph, nodes[count.node], count, gone, constants)
    for node in source.nodes:
        if node.target is aten.scaled_dot_product_attention.default:
            width = structure.tracer.values[node.args[0]][-1]
            if not pure and node.kwargs.get("scale") is None and gone[np.abs(width)].any():
                new = nodes[node]
                new.kwargs = {**new.kwargs, "scale": 1.0 / float(len(width)) ** 0.5}
    _slice_constants(structure, source, graph, nodes, gone, constants)
    _drop(source, graph, nodes, drop)
    graph.lint()
    read = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    return Rewritten(graph, nodes, {n: value for n, value in constants.items() if n in read})


def _drop(source: fx.Graph, graph: fx.Graph, nodes: dict[fx.Node, fx.Node], drop: Dropped) -> None:
    """Sums hand on what is left of them; what ran for a branch alone leaves."""
    for join in [node for node in source.nodes if node in drop.joins and node in nodes]:
        new, instead = nodes[join], nodes[drop.joins[join]]
        if is_written(join):  # into the sum, and not into what it was made of
            with graph.inserting_before(new):
                instead = graph.call_function(aten.clone.default, (instead,))
        new.replace_all_uses_with(instead)
        graph.erase_node(new)
        nodes[join] = instead  # which the next sum may hand on
    for join in drop.joins:
        nodes.pop(join, None)
    lost = {nodes.pop(node) for node in drop.nodes if node in nodes}
    while True:  # assertions about what left, and selections of its survivors
        left = [n for n in graph.nodes if n not in lost and n.op != "output"
                and any(operand in lost for operand in n.all_input_nodes)]  # fmt: skip
        if not left:
            break
        lost.update(left)
    for node in reversed(list(graph.nodes)):
        if node in lost or (node.op == "get_attr" and not node.users and drop.joins):
            graph.erase_node(node)


def _refuse_empty_statistics(structure: Structure, source: fx.Graph, gone: np.ndarray) -> None:
    for statistic in structure.tracer.adapted:
        left = int((~gone[statistic.ids]).sum())
        if statistic.node.graph is source and left < max(1, statistic.chosen):
            raise PlanError(
                f"the plan leaves {left} of the {len(statistic.ids)} indices that "
                f"{statistic.node.target} at {source_line(statistic.node) or 'an unknown line'} "
                f"runs over; keep at least {max(1, statistic.chosen)}"
            )


def _write(
    graph: fx.Graph,
    node: fx.Node,
    count: Count,
    gone: np.ndarray,
    constants: dict[str, torch.Tensor],
) -> None:
    lost = gone[count.ids]
    if count.kind == "pieces":
        _write_pieces(node, [int((~gone[piece]).sum()) for piece in count.pieces])
        return
    if not lost.any():
        return
    if count.kind == "lookup":
        _write_lookup(graph, node, count, lost, constants)
        return
    old = _argument(node, count.argument)
    value = old if count.item is None else old[count.item]
    new: Any = int((~lost).sum())
    if count.kind == "last":
        new -= 1
    elif count.kind == "position":
        new = _new_position(value, count.place, ~lost)
    elif count.kind == "shift":
        new = _new_shift(value, count.place, ~lost)
    elif isinstance(value, fx.Node):  # a symbolic size: the batch times what leaves
        with graph.inserting_before(node):
            product = graph.call_function(operator.mul, (value, new))
            new = graph.call_function(operator.floordiv, (product, len(lost)))
    elif value == -1 and count.argument in _INFERRED:
        return
    if count.item is not None:
        new = [new if place == count.item else item for place, item in enumerate(old)]
    _set_argument(node, count.argument, new)


def _new_position(old: Any, place: int, stays: np.ndarray) -> int:
    """The place among the survivors, counted from the end where the literal did so."""
    after = int(stays[place:].sum())
    if isinstance(old, int) and old < 0 and after:
        return -after
    return int(stays[:place].sum())


def _new_shift(old: int, forwards: int, stays: np.ndarray) -> int:
    """How far the survivors turn; in the direction of the literal."""
    if old < 0:
        return -int(stays[: (len(stays) - forwards) % len(stays)].sum())
    return int(stays[len(stays) - forwards :].sum())


def _write_pieces(node: fx.Node, sizes: list[int]) -> None:
    """Keep chunk and split where they still cut these sizes; write the sizes out otherwise."""
    operand, dim = node.args[0], _argument(node, "dim")
    total = sum(sizes)
    if node.target is aten.chunk.default:
        width = -(-total // int(_argument(node, "chunks")))
        if sizes == _cut(total, width):
            return
    elif node.target is aten.split.Tensor:
        if sizes == _cut(total, int(_argument(node, "split_size"))):
            return
        if sizes == _cut(total, sizes[0]):
            _set_argument(node, "split_size", sizes[0])
            return
    elif node.target is aten.split_with_sizes.default:
        _set_argument(node, "split_sizes", sizes)
        return
    node.target = aten.split_with_sizes.default
    node.args = (operand, sizes, 0 if dim is None else dim)
    node.kwargs = {}


def _cut(total: int, width: int) -> list[int]:
    return [min(width, total - start) for start in range(0, total, width)] if width else []


def _write_lookup(
    graph: fx.Graph,
    node: fx.Node,
    count: Count,
    lost: np.ndarray,
    constants: dict[str, torch.Tensor],
) -> None:
    """Positions into a dimension become ranks among its survivors."""
    assert count.chosen is not None
    rank = np.cumsum(~lost) - 1
    chosen = rank[count.chosen[~lost[count.chosen]]]
    if node.target is aten.slice.Tensor and np.array_equal(
        chosen, np.arange((~lost).sum())[_python_slice(node)]
    ):
        return  # the stride still picks the right ones
    with graph.inserting_before(node):
        index = _constant(graph, torch.from_numpy(chosen), constants)
    if node.target is aten.slice.Tensor:  # a strided slice has no strided counterpart
        dim = _argument(node, "dim")
        node.target = aten.index_select.default
        node.args = (node.args[0], 0 if dim is None else dim, index)
        node.kwargs = {}
    elif count.item is not None:
        entries = list(_argument(node, count.argument))
        entries[count.item] = index
        _set_argument(node, count.argument, entries)
    else:
        _set_argument(node, count.argument, index)


def _slice_constants(
    structure: Structure,
    source: fx.Graph,
    graph: fx.Graph,
    nodes: dict[fx.Node, fx.Node],
    gone: np.ndarray,
    constants: dict[str, torch.Tensor],
) -> None:
    """Select the survivors of a constant where it enters the computation."""
    tracer = structure.tracer
    constant = constant_nodes(source, tracer.tensors.keys() | tracer.aliases.keys())
    for node, value in tracer.constants.items():
        if node.graph is not source:
            continue
        entering = [nodes[u] for u in node.users if u not in constant and u in nodes]
        lookups = []
        for dim, ids in enumerate(value):
            lost = gone[np.abs(ids)]
            if not lost.any():
                continue
            if node.target in _UNIFORM and len(entering) == len(node.users):
                size = list(_argument(nodes[node], "size"))
                size[dim] = int((~lost).sum())
                _set_argument(nodes[node], "size", size)
                continue
            lookups.append((dim, torch.from_numpy(np.flatnonzero(~lost))))
        # Where it is read, not where it is made: code may write into it in between.
        for user in entering if lookups else ():
            last = nodes[node]
            with graph.inserting_before(user):
                for dim, kept in lookups:
                    index = _constant(graph, kept, constants)
                    last = graph.call_function(aten.index_select.default, (last, dim, index))
            user.replace_input_with(nodes[node], last)


def _constant(graph: fx.Graph, value: torch.Tensor, constants: dict[str, torch.Tensor]) -> fx.Node:
    name = f"_survivors_{len(constants)}"
    constants[name] = value
    return graph.get_attr(name)


def _python_slice(node: fx.Node) -> slice:
    return slice(*(_argument(node, name) for name in ("start", "end", "step")))


def _position(node: fx.Node, argument: str) -> int:
    names = [a.name for a in node.target._schema.arguments]  # type: ignore[union-attr]
    return names.index(argument)


def _argument(node: fx.Node, argument: str) -> Any:
    if argument in node.kwargs:
        return node.kwargs[argument]
    place = _position(node, argument)
    return node.args[place] if place < len(node.args) else None


def _set_argument(node: fx.Node, argument: str, value: Any) -> None:
    place = _position(node, argument)
    if argument not in node.kwargs and place < len(node.args):
        node.args = (*node.args[:place], value, *node.args[place + 1 :])
    elif argument not in node.kwargs and place == len(node.args):
        node.args = (*node.args, value)
    else:
        node.kwargs = {**node.kwargs, argument: value}


def survivors(value: Value, gone: np.ndarray) -> list[np.ndarray]:
    """Surviving positions of every dimension of a value."""
    return [np.flatnonzero(~gone[np.abs(ids)]) for ids in value]

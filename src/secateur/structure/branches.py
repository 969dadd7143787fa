"""Branches: what is added to a skip path, and can leave whole.

Where a branch answers zero, the sum is what the skip path hands on. So a sum without it is the
other operand, and whatever ran for the branch alone need not run, nor its tensors be kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from secateur.structure.constants import is_mutating
from secateur.structure.groups import BRANCH, Group
from secateur.structure.tracer import Tracer

aten = torch.ops.aten
_SUMS = (aten.add.Tensor, aten.add_.Tensor)
Joins = Mapping[fx.Node, fx.Node]


@dataclass(frozen=True, eq=False)
class Dropped:
    """What leaves with whole branches.

    joins:   sum -> the operand that it hands on. nodes: what runs no more.
    tensors: canonical names of parameters and buffers that nothing reads any more.
    """

    joins: Joins = field(default_factory=dict)
    nodes: frozenset[fx.Node] = frozenset()
    tensors: frozenset[str] = frozenset()


NOTHING = Dropped()


@dataclass(frozen=True, eq=False)
class Branch:
    """A path beside a skip path.

    name:   ``branch:`` and the last weight of it, e.g. ``branch:layer1.0.conv2``.
    joins:  in each captured graph, the sum that it ends in -> the operand that is not it.
    ends:   in each captured graph, the operand that is it.
    layers: names of its tensors. groups: names of the groups that leave with it.
    """

    name: str
    joins: Joins
    ends: tuple[fx.Node, ...]
    layers: tuple[str, ...]
    groups: tuple[str, ...]

    @property
    def size(self) -> int:
        """A branch is one unit."""
        return 1


@dataclass(frozen=True, eq=False)
class Flow:
    """What runs in a captured graph, and for what.

    writers: operations that write into an operand, with the tensor that they write into.
    live:    what runs for the outputs, and for what is written into tensors that stay.
    """

    graph: fx.Graph
    writers: tuple[tuple[fx.Node, Any], ...]
    live: frozenset[fx.Node]

    @staticmethod
    def of(graph: fx.Graph) -> Flow:
        """Of a whole graph."""
        writers = tuple(
            (node, _base(node))
            for node in graph.nodes
            if node.op == "call_function" and is_mutating(node) and not _is_sum(node)
        )
        return Flow(graph, writers, frozenset(_reached(graph, writers, {})))

    def left(self, joins: Joins) -> set[fx.Node]:
        """What still runs where sums hand on one operand alone."""
        return _reached(self.graph, self.writers, joins)

    def lost(self, join: fx.Node, end: fx.Node) -> set[fx.Node]:
        """What runs for one operand of a sum alone."""
        if any(node in self.live and not node.users for node, _ in self.writers):
            kept = next(operand for operand in join.args[:2] if operand is not end)
            return set(self.live - self.left({join: kept}))  # type: ignore[dict-item]
        lost: set[fx.Node] = set()
        waiting = [end]
        while waiting:
            node = waiting.pop()
            others = (user for user in node.users if user in self.live and user not in lost)
            if node not in lost and all(user is join and node is end for user in others):
                lost.add(node)
                waiting += node.all_input_nodes
        return lost


def branches(flows: Sequence[Flow], tracer: Tracer, groups: Sequence[Group]) -> tuple[Branch, ...]:
    """All branches, in the order of their sums; those that every graph has.

    flows: of eval mode, and of train mode where it was read.
    """
    seen = [_candidates(flow, tracer) for flow in flows]
    members = {group.name: {m.tensor for m in group.members} for group in groups}
    found: dict[str, Branch] = {}
    for tensors, (join, place, nodes) in seen[0].items():
        places = [(join, place), *(c[tensors][:2] for c in seen[1:] if tensors in c)]
        if len(places) < len(flows):
            continue
        name = base = BRANCH + _last_weight(nodes, tracer)
        number = 1
        while name in found:
            number += 1
            name = f"{base}~{number}"
        joins: dict[fx.Node, Any] = {node: node.args[1 - at] for node, at in places}
        lost = dropped(flows, tracer, joins).tensors
        inside = tuple(group for group, own in members.items() if own <= lost)
        layers = tuple(tensor for tensor in tracer.tensors if tensor in lost)
        ends = tuple(node.args[at] for node, at in places)
        found[name] = Branch(name, joins, ends, layers, inside)  # type: ignore[arg-type]
    return tuple(found.values())


def dropped(flows: Iterable[Flow], tracer: Tracer, joins: Joins) -> Dropped:
    """What leaves where these sums hand on one operand alone."""
    flows = list(flows)
    before = {node for flow in flows for node in flow.live}
    after = {node for flow in flows for node in flow.left(joins)}
    read = {_tensor(node, tracer) for node in after if node.op == "get_attr"}
    lost = {_tensor(node, tracer) for node in before - after if node.op == "get_attr"} - read
    owners = {name.rpartition(".")[0] for name in lost} - {n.rpartition(".")[0] for n in read}
    # A counter of batches that only train mode moves leaves with the rest of its module.
    lost |= {n for n in tracer.tensors if n.rpartition(".")[0] in owners and n not in read}
    lost &= tracer.tensors.keys()
    nodes = {node for node in before - after if node.op != "placeholder"}
    nodes |= {
        node
        for flow in flows
        for node in flow.graph.nodes
        if node.op == "get_attr" and node not in after and _tensor(node, tracer) in lost
    }
    return Dropped(dict(joins), frozenset(nodes), frozenset(lost))


def _candidates(
    flow: Flow, tracer: Tracer
) -> dict[frozenset[str], tuple[fx.Node, int, set[fx.Node]]]:
    """Parameters -> sum, place of the operand that leaves, and what runs for it alone.

    Of the two operands of a sum the one that takes more work; both cannot leave.
    """
    worked: dict[fx.Node, int] = {}
    for work in tracer.works:
        size = work.constant
        for ids in work.vectors:
            size *= len(ids)
        worked[work.node] = worked.get(work.node, 0) + size
    driven = _driven(flow.graph)
    readers: dict[str, set[fx.Node]] = {}
    for node in flow.live:
        if node.op == "get_attr":
            readers.setdefault(_tensor(node, tracer), set()).add(node)
    parameters = tracer.tensors.keys() - tracer.buffers.keys()
    found: dict[frozenset[str], tuple[fx.Node, int, set[fx.Node]]] = {}
    for join in flow.graph.nodes:
        best: tuple[int, frozenset[str], int, set[fx.Node]] | None = None
        for place in _places(join) if join in flow.live else ():
            end, kept = join.args[place], join.args[1 - place]
            if kept not in driven or [u for u in end.users if u in flow.live] != [join]:
                continue
            lost = flow.lost(join, end)
            amount = sum(worked.get(node, 0) for node in lost)
            names = {_tensor(node, tracer) for node in lost if node.op == "get_attr"}
            own = frozenset(name for name in names & parameters if readers[name] <= lost)
            inputs = any(node.op == "placeholder" for node in lost)
            if amount and own and not inputs and (best is None or amount > best[0]):
                best = amount, own, place, lost
        if best is not None and best[1] not in found:
            found[best[1]] = (join, *best[2:])
    return found


def _places(node: fx.Node) -> tuple[int, ...]:
    """Operands of a sum of two tensors of its own shape and type."""
    if node.target not in _SUMS or node.kwargs.get("alpha", 1) != 1 or len(node.args) != 2:
        return ()
    a, b = node.args
    if not isinstance(a, fx.Node) or not isinstance(b, fx.Node) or a is b:
        return ()
    values = [n.meta.get("val") for n in (a, b, node)]
    if not all(isinstance(value, torch.Tensor) for value in values):
        return ()
    like = {(tuple(map(str, value.shape)), value.dtype) for value in values}  # type: ignore[union-attr]
    return (0, 1) if len(like) == 1 else ()


def _reached(graph: fx.Graph, writers: Sequence[tuple[fx.Node, Any]], joins: Joins) -> set[fx.Node]:
    output = next(node for node in reversed(graph.nodes) if node.op == "output")
    live: set[fx.Node] = set()
    waiting = [output]
    while waiting:
        while waiting:
            node = waiting.pop()
            if node not in live:
                live.add(node)
                waiting += [joins[node]] if node in joins else node.all_input_nodes
        waiting = [node for node, base in writers if node not in live and base in live]
    return live


def _is_sum(node: fx.Node) -> bool:
    """Whether what it writes is read through its own result, as ``x += y`` is."""
    return node.target in _SUMS and bool(node.users)


def _base(node: fx.Node) -> Any:
    """What a node writes into: through views, the tensor that they look at."""
    base: Any = node.args[0] if node.args else None
    while isinstance(base, fx.Node) and base.op == "call_function" and base.args:
        schema = getattr(base.target, "_schema", None)
        if schema is None or not any(r.alias_info for r in schema.returns) or is_mutating(base):
            break
        base = base.args[0]
    return base


def _driven(graph: fx.Graph) -> set[fx.Node]:
    """What depends on an input by more than its sizes."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and (
            node.op == "placeholder" or any(operand in found for operand in node.all_input_nodes)
        ):
            found.add(node)
    return found


def _tensor(node: fx.Node, tracer: Tracer) -> str:
    name = str(node.target)
    return tracer.aliases.get(name, name)


def _last_weight(nodes: set[fx.Node], tracer: Tracer) -> str:
    """Of what runs for a branch alone, the weight that is read last."""
    worked = {work.node for work in tracer.works}
    last = ""
    for node in sorted(nodes):
        if node in worked:
            names = [_tensor(n, tracer) for n in node.all_input_nodes if n.op == "get_attr"]
            last = next((n for n in names if len(tracer.tensors.get(n, ())) > 1), last)
    if not last:
        last = min(_tensor(n, tracer) for n in nodes if n.op == "get_attr")
    return last.removesuffix(".weight")

"""Read a captured graph into axes: dispatch every node to the rule of its operation.

A rule is a function ``rule(tracer, node, *args, **kwargs) -> Value | list[Value] | None``; the
arguments are the node's own with every tensor replaced by its ``Value`` and every symbolic size
by its number. A rule states facts on ``tracer.axes`` and notes three things beside them:

    tracer.count(node, "groups", ids)       this literal argument counts these indices
    tracer.adapt(node, x, dim)              a statistic of the operation runs over this dimension
    tracer.work(node, constant, vectors)    multiply-adds: constant * product of the counts
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from secateur.structure.axes import Axes, Ids
from secateur.structure.boundary import CLOSED, Boundary, flat_outputs
from secateur.structure.capture import Captured
from secateur.structure.constants import constant_nodes
from secateur.structure.values import Value, fits, hint, holds_tensor, sizes_of, zeros

Rule = Callable[..., Any]
RULES: dict[Any, Rule] = {}
ZEROS = frozenset({torch.ops.aten.zeros.default, torch.ops.aten.zeros_like.default})


def rule(*operations: Any) -> Callable[[Rule], Rule]:
    """Register a rule for operations: ``torch.ops.aten.conv2d``, a python operator, or the name
    ``"library.operation"`` of one that an optional library brings."""

    def register(function: Rule) -> Rule:
        for operation in operations:
            RULES[operation] = function
        return function

    return register


@dataclass(frozen=True, eq=False)
class Count:
    """A literal argument of a node that counts indices; graph surgery writes it anew.

    kind ``literal``:  the new value is the number of surviving ids.
    kind ``position``: a bound or an index within the dimension ``ids``, ``place`` from its start;
                       a literal below zero counts from the end, and stays below zero.
    kind ``shift``:    a cyclic shift of the dimension ``ids`` by ``place`` forwards.
    kind ``pieces``:   sizes of a chunk or split, ``pieces`` one id vector per output.
    kind ``lookup``:   a constant index tensor into ``ids``; positions become ranks of survivors.
    """

    node: fx.Node
    argument: str
    ids: Ids
    item: int | None = None
    kind: str = "literal"
    place: int = 0
    pieces: tuple[Ids, ...] = ()
    chosen: Ids | None = None


@dataclass(frozen=True, eq=False)
class Adapted:
    """A node whose statistic runs over dimension ``dim`` of operand ``operand``."""

    node: fx.Node
    ids: Ids


@dataclass(frozen=True, eq=False)
class Work:
    """Multiply-adds of a node for the whole captured batch: constant * product of counts."""

    node: fx.Node
    constant: int
    vectors: tuple[Ids, ...]


@dataclass(eq=False)
class Tracer:
    """State of one reading; several graphs of one model may share ``axes`` and ``tensors``."""

    model: nn.Module
    boundary: Boundary = CLOSED
    axes: Axes = field(default_factory=Axes)
    tensors: dict[str, Value] = field(default_factory=dict)  # by canonical name
    aliases: dict[str, str] = field(default_factory=dict)
    consumed: list[Ids] = field(default_factory=list)
    produced: list[Ids] = field(default_factory=list)
    values: dict[fx.Node, Any] = field(default_factory=dict)
    origins: list[fx.Node | None] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    adapted: list[Adapted] = field(default_factory=list)
    works: list[Work] = field(default_factory=list)
    constants: dict[fx.Node, Value] = field(default_factory=dict)
    unknown: dict[fx.Node, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    inputs: list[fx.Node] = field(default_factory=list)  # of the graph that is read

    def __post_init__(self) -> None:
        first: dict[tuple[int, tuple[int, ...], tuple[int, ...], int], str] = {}
        buffers = {name for name, _ in self.model.named_buffers(remove_duplicate=False)}
        self.buffers = frozenset(buffers)
        everything = [
            *self.model.named_parameters(remove_duplicate=False),
            *self.model.named_buffers(remove_duplicate=False),
        ]
        for name, tensor in everything:
            place = tensor.untyped_storage().data_ptr() if tensor.device.type != "meta" else 0
            key = (
                place or id(tensor),
                tuple(tensor.shape),
                tuple(tensor.stride()),
                tensor.storage_offset(),
            )
            known = first.setdefault(key, name)
            if known != name:
                self.aliases[name] = known
                continue
            self.tensors[name] = Value(self.axes.fresh(size) for size in tensor.shape)

    def forked(self) -> Tracer:
        """A copy that can read another graph without changing this one."""
        copy = object.__new__(Tracer)
        for name, value in vars(self).items():
            fresh = value.copy() if isinstance(value, (list, dict, set)) else value
            setattr(copy, name, fresh)
        copy.axes = Axes(
            self.axes.count,
            self.axes.origin,
            list(self.axes.edges),
            list(self.axes.pins),
            list(self.axes.products),
            list(self.axes.weak),
        )
        return copy

    # -- what rules say -------------------------------------------------------------------

    def count(self, node: fx.Node, argument: str, ids: Ids, item: int | None = None) -> None:
        """The literal ``argument`` (or its ``item``) of ``node`` is ``len(ids)``."""
        if ids.any():
            self.counts.append(Count(node, argument, np.abs(ids), item))

    def position(self, node: fx.Node, argument: str, ids: Ids, place: int) -> None:
        """The literal ``argument`` is the place before which ``place`` indices stand."""
        if ids.any():
            self.counts.append(Count(node, argument, np.abs(ids), kind="position", place=place))

    def adapt(self, node: fx.Node, ids: Ids) -> None:
        """A statistic of ``node`` runs over ``ids``; it will run over the survivors."""
        if ids.any():
            self.adapted.append(Adapted(node, np.abs(ids)))

    def work(self, node: fx.Node, constant: int, vectors: Sequence[Ids]) -> None:
        """``node`` costs ``constant`` times the product of the vectors' counts."""
        self.works.append(Work(node, constant, tuple(np.abs(v) for v in vectors)))

    def contract(self, node: fx.Node, a: Ids, b: Ids, weight: bool = False) -> None:
        """Contracted dimensions of two operands; ``weight``: b belongs to a weight."""
        self.axes.same(a, b)
        if weight:
            self.consumed.append(np.abs(b))
        both = (a < 0) & (b < 0)
        if both.any():  # neither side is zero where the index left: only survivors may be summed
            self.adapt(node, a)

    def produce(self, *vectors: Ids) -> None:
        """These indices of a weight or bias are what its operation brings forth."""
        self.produced.extend(np.abs(v) for v in vectors)

    def tie(self, vectors: Sequence[Ids]) -> Ids:
        """One dimension of a broadcast: vectors of full size tied, size 1 imposes nothing."""
        size = max((len(v) for v in vectors), default=1)
        full = [v for v in vectors if len(v) == size]
        for other in full[1:]:
            self.axes.same(full[0], other)
        return full[0].copy()

    def taint(self, ids: Ids) -> None:
        """An operation wrote non-zero values in place: all views of it know."""
        touched = np.zeros(self.axes.count, bool)
        touched[np.abs(ids[ids < 0])] = True

        def mark(value: Any) -> Any:
            if isinstance(value, Value):
                if not any(touched[np.abs(v)].any() for v in value):
                    return value
                return Value(np.where(touched[np.abs(v)], -np.abs(v), v) for v in value)
            return [mark(item) for item in value] if isinstance(value, list) else value

        self.values = {node: mark(value) for node, value in self.values.items()}

    def pin(self, value: Value | Ids, reason: str) -> None:
        """Nothing of a value (all dimensions) or of an id vector leaves."""
        if isinstance(value, np.ndarray):
            self.axes.pin(value, reason)
            return
        for ids in value:
            self.axes.pin(ids, reason)

    # -- reading --------------------------------------------------------------------------

    def read(self, captured: Captured) -> None:
        """Read one captured graph."""
        known = self.tensors.keys() | self.aliases.keys()
        constant = constant_nodes(captured.module.graph, known)
        self.inputs = [n for n in captured.module.graph.nodes if n.op == "placeholder"]
        for node in captured.module.graph.nodes:
            self.axes.origin = len(self.origins)
            self.origins.append(node)
            if node in constant:
                continue
            for operand in node.all_input_nodes:
                if operand in constant and operand not in self.values:
                    self._meet_constant(operand, constant)
            self.values[node] = self._read(node, captured)

    def _input(self, node: fx.Node) -> Value:
        """Zeros, of which nothing leaves; fresh indices where the boundary is open."""
        place = self.inputs.index(node)
        return Value(
            self.axes.fresh(size) if self.boundary.frees_input(place, dim) else np.zeros(size, int)
            for dim, size in enumerate(sizes_of(node.meta["val"]))
        )

    def _meet_constant(self, node: fx.Node, constant: set[fx.Node]) -> None:
        """A constant enters the computation: fresh ids, and zero only where all of it is."""
        result = node.meta.get("val")
        zero = node.target in ZEROS and not constant.intersection(node.users)  # nor written to
        if isinstance(result, (list, tuple)):
            value: Any = [self._constant(item, zero) for item in result]
        else:
            value = self._constant(result, zero)
        self.values[node] = value
        if isinstance(value, Value):
            self.constants[node] = value

    def _constant(self, result: Any, zero: bool) -> Any:
        if not isinstance(result, torch.Tensor):
            return result
        sign = 1 if zero else -1
        return Value(sign * self.axes.fresh(size) for size in sizes_of(result))

    def _read(self, node: fx.Node, captured: Captured) -> Any:
        result = node.meta.get("val")
        if node.op == "placeholder":
            return self._input(node) if isinstance(result, torch.Tensor) else None
        if node.op == "get_attr":
            name = str(node.target)
            name = self.aliases.get(name, name)
            if name in self.tensors:
                self.used.add(name)
                return self.tensors[name]
            return None
        if node.op == "output":
            for place, operand in enumerate(flat_outputs(captured.module.graph)):
                value = self.values.get(operand)
                in_cache = place < len(captured.caches) and captured.caches[place]
                for dim, ids in enumerate(value if isinstance(value, Value) else ()):
                    if not in_cache and not self.boundary.frees_output(place, dim):
                        self.pin(ids, "it is an output of the model")
            return None
        if node.op != "call_function":
            return self._unknown(node, "a call that is not an operation")
        operation = getattr(node.target, "overloadpacket", node.target)
        args = fx.map_arg(node.args, self._operand)
        kwargs = fx.map_arg(node.kwargs, self._operand)
        function = RULES.get(operation) or RULES.get(str(operation))
        if function is None and is_pointwise(node.target):
            function = RULES["pointwise"]
        if function is None:
            if result is not None and not holds_tensor(result):
                return None
            if not any(self._may_lose(n) for n in node.all_input_nodes):
                return _whole(result)
            return self._unknown(node, "no rule for this operation")
        return self._by_rule(function, node, args, kwargs)

    def _by_rule(self, function: Rule, node: fx.Node, args: Any, kwargs: Any) -> Any:
        """Apply a rule; one that does not understand the call counts as missing, and is reported.

        What it stated before it failed stays: more facts only hold more back.
        """
        counts = len(self.counts)
        try:
            result = function(self, node, *args, **kwargs)
            mismatch = not fits(result, node.meta.get("val"))
        except (TypeError, ValueError, LookupError, AssertionError, StopIteration) as error:
            del self.counts[counts:]
            return self._unknown(node, f"its rule does not understand this call ({error!r})")
        if mismatch:
            del self.counts[counts:]
            return self._unknown(node, "its rule gives another shape than the operation")
        if isinstance(result, list):
            return [self._without_lone(part) for part in result]
        return self._without_lone(result)

    def _without_lone(self, value: Any) -> Any:
        """A dimension cut down to one index: without it nothing would be left, so it stays."""
        if not isinstance(value, Value) or not any(len(ids) == 1 and ids[0] for ids in value):
            return value
        for ids in value:
            if len(ids) == 1:
                self.pin(ids, "it is used by itself")
        return Value(np.zeros(1, np.int64) if len(ids) == 1 else ids for ids in value)

    def _operand(self, node: fx.Node) -> Any:
        value = self.values.get(node)
        if value is not None:
            return value
        result = node.meta.get("val")
        return hint(result) if isinstance(result, (torch.SymInt, int)) else result

    def _unknown(self, node: fx.Node, reason: str) -> Any:
        """Pin all that an operation touches; a missing rule costs compression, nothing else."""
        self.unknown[node] = reason
        return self.hold(node, reason)

    def hold(self, node: fx.Node, reason: str) -> Any:
        """Pin every operand of a node and return a result of which nothing leaves."""
        for operand in node.all_input_nodes:
            value = self.values.get(operand)
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, Value):
                    self.pin(part, reason)
        return _whole(node.meta.get("val"))

    def _may_lose(self, node: fx.Node) -> bool:
        """Whether anything of a node's result could leave."""
        value = self.values.get(node)
        return any(
            isinstance(part, Value) and any(ids.any() for ids in part)
            for part in (value if isinstance(value, list) else [value])
        )


def _whole(result: Any) -> Any:
    """Values of a result of which nothing leaves."""
    if isinstance(result, torch.Tensor):
        return zeros(result)
    if isinstance(result, (list, tuple)):
        return [zeros(t) if isinstance(t, torch.Tensor) else None for t in result]
    return None


def is_pointwise(target: Any) -> bool:
    """Whether torch itself tags an operation as point-wise."""
    return isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags


def getitem(tracer: Tracer, node: fx.Node, value: Any, index: Any) -> Any:
    """An element of an operation with several results."""
    return value[index] if isinstance(value, list) else None


RULES[operator.getitem] = getitem

"""What the rules of operations state while a graph is read (``reading.py``).

A rule is a function ``rule(tracer, node, *args, **kwargs) -> Value | list[Value] | None``; the
arguments are the node's own with every tensor replaced by its ``Value`` and every symbolic size
by its number. A rule states facts on ``tracer.axes`` and notes three things beside them:

    tracer.count(node, "groups", ids)       this literal argument counts these indices
    tracer.adapt(node, x, dim)              a statistic of the operation runs over this dimension
    tracer.work(node, constant, vectors)    multiply-adds: constant * product of the counts
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from secateur.structure.axes import Axes, Ids
from secateur.structure.boundary import CLOSED, Boundary
from secateur.structure.values import Value, zeros

Rule = Callable[..., Any]
RULES: dict[Any, Rule] = {}


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
    kind ``last``:     the place of the last surviving id.
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
    """A node whose statistic runs over ``ids``, or that chooses ``chosen`` of them."""

    node: fx.Node
    ids: Ids
    chosen: int = 0


@dataclass(frozen=True, eq=False)
class Positions:
    """The integers of a node's result, or of its result number ``part``, are places in ``ids``."""

    ids: Ids
    part: int | None = None


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
    element_sizes: dict[str, int] = field(default_factory=dict)  # bytes, by canonical name
    consumed: list[Ids] = field(default_factory=list)
    produced: list[Ids] = field(default_factory=list)
    values: dict[fx.Node, Any] = field(default_factory=dict)
    origins: list[fx.Node | None] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    adapted: list[Adapted] = field(default_factory=list)
    works: list[Work] = field(default_factory=list)
    constants: dict[fx.Node, Value] = field(default_factory=dict)
    positions: dict[fx.Node, Positions] = field(default_factory=dict)
    unknown: dict[fx.Node, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    weights: dict[fx.Node, bool] = field(default_factory=dict)  # whether parameters alone make it
    inputs: list[fx.Node] = field(default_factory=list)  # of the graph that is read

    def __post_init__(self) -> None:
        first: dict[tuple[int, tuple[int, ...], tuple[int, ...], int], str] = {}
        self.buffers = dict(self.model.named_buffers(remove_duplicate=False))
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
            self.element_sizes[name] = tensor.element_size()

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

    def count(self, node: fx.Node, argument: str, ids: Ids, item: int | None = None) -> None:
        """The literal ``argument`` (or its ``item``) of ``node`` is ``len(ids)``."""
        if ids.any():
            self.counts.append(Count(node, argument, np.abs(ids), item))

    def last(self, node: fx.Node, argument: str, ids: Ids) -> None:
        """The literal ``argument`` is the last place of ``ids``."""
        if ids.any():
            self.counts.append(Count(node, argument, np.abs(ids), kind="last"))

    def position(self, node: fx.Node, argument: str, ids: Ids, place: int) -> None:
        """The literal ``argument`` is the place before which ``place`` indices stand."""
        if ids.any():
            self.counts.append(Count(node, argument, np.abs(ids), kind="position", place=place))

    def adapt(self, node: fx.Node, ids: Ids, chosen: int = 0) -> None:
        """A statistic of ``node`` runs over ``ids``; it will run over the survivors. Or it chooses
        ``chosen`` of them, and as many stay."""
        if ids.any():
            self.adapted.append(Adapted(node, np.abs(ids), chosen))

    def point(self, node: fx.Node, ids: Ids, part: int | None = None) -> None:
        """The integers of a result of ``node`` are places in ``ids``; see ``positions.py``."""
        if ids.any():
            self.positions[node] = Positions(np.abs(ids), part)

    def pointed(self, operand: Any) -> Ids | None:
        """What the integers of an operand are places in, where that is known."""
        found = self.positions.get(operand) if isinstance(operand, fx.Node) else None
        return found.ids if found is not None and found.part is None else None

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

    def hold(self, node: fx.Node, reason: str) -> Any:
        """Pin every operand of a node and return a result of which nothing leaves."""
        for operand in node.all_input_nodes:
            value = self.values.get(operand)
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, Value):
                    self.pin(part, reason)
        return whole(node.meta.get("val"))


def whole(result: Any) -> Any:
    """Values of a result of which nothing leaves."""
    if isinstance(result, torch.Tensor):
        return zeros(result)
    if isinstance(result, (list, tuple)):
        return [zeros(t) if isinstance(t, torch.Tensor) else None for t in result]
    return None

"""The operations of a model that take time, with the sizes that a removal leaves them.

Read from the structure, so no model has to be built to know the shapes of its layers. A runtime
measures a ``Layer`` by itself; two layers of the same kind, sizes and settings are one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.measure.layer import Kind, Layer
from secateur.structure.axes import Ids
from secateur.structure.ledger import Counter, Term, Terms
from secateur.structure.structure import Removal, Structure
from secateur.structure.values import Value

aten = torch.ops.aten

CONVOLUTIONS: dict[Any, bool] = {
    **dict.fromkeys((aten.conv1d, aten.conv2d, aten.conv3d), False),
    **dict.fromkeys((aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d), True),
}
RECURRENT: dict[Any, str] = {aten.lstm: "lstm", aten.gru: "gru", aten.rnn_tanh: "rnn_tanh",
             aten.rnn_relu: "rnn_relu"}  # fmt: skip
# Views of what is there, and look-ups of sizes: no runtime spends time on them.
FREE = frozenset({
    aten.view, aten.reshape, aten.expand, aten.unsqueeze, aten.squeeze, aten.flatten,
    aten.unflatten, aten.slice, aten.select, aten.split, aten.split_with_sizes, aten.chunk,
    aten.unbind, aten.detach, aten.alias, aten.sym_size, aten.dropout, aten._assert_tensor_metadata,
    aten.expand_as, aten.view_as, aten.contiguous, aten.narrow, aten.diagonal, aten.lift_fresh_copy,
})  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Entry:
    """A node, with a term for each of its sizes."""

    node: fx.Node
    kind: Kind
    settings: tuple[Any, ...]
    terms: tuple[Term, ...]


@dataclass(frozen=True, eq=False)
class Layers:
    """All operations of a model that take time, at one batch size.

    names: of their nodes, in the order in which they run. nodes: of every term. traffic: how many
    terms at the end count the elements that point-wise operations write.
    """

    structure: Structure
    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    settings: tuple[tuple[Any, ...], ...]
    starts: tuple[int, ...]
    nodes: tuple[fx.Node, ...]
    counter: Counter
    constants: np.ndarray
    factors: np.ndarray
    traffic: int

    def at(self, remove: Removal) -> tuple[list[Layer], float]:
        """The layers that a removal leaves, and the elements that all other operations write.

        Layers of branches that leave have sizes of zero.
        """
        drop = self.structure.dropped(remove)
        counts = np.append(self.counter.counts(self.structure.gone(remove)), 1)
        values = self.constants * counts[self.factors].prod(axis=1)
        if drop.nodes:
            values = np.where([node in drop.nodes for node in self.nodes], 0, values)
        split = len(values) - self.traffic
        sizes = values[:split].round().astype(int).tolist()
        found = []
        bounds = zip(self.starts, (*self.starts[1:], split), strict=True)
        for kind, settings, (start, end) in zip(self.kinds, self.settings, bounds, strict=True):
            found.append(_layer(kind, settings, sizes[start:end]))
        return found, float(values[split:].sum())


def layers_of(structure: Structure, batch: int = 1) -> Layers:
    """Read the layers of a model's eval graph, scaled from the traced batch to ``batch``."""
    reader = _Reader(structure, batch / structure.captured.batch)
    worked: dict[fx.Node, list[Any]] = {}
    graph = structure.captured.module.graph
    for work in structure.tracer.works:
        if work.node.graph is graph:
            worked.setdefault(work.node, []).append(work)
    written: list[tuple[fx.Node, Term]] = []
    for node in graph.nodes:
        value = structure.tracer.values.get(node)
        if node in worked:
            reader.read(node, worked[node])
        elif node.op == "call_function" and isinstance(value, Value) and not _is_free(node):
            written.append((node, reader.term(1, value, scaled=True)))
    return reader.finished(written)


def _is_free(node: fx.Node) -> bool:
    return getattr(node.target, "overloadpacket", node.target) in FREE


class _Reader:
    def __init__(self, structure: Structure, scale: float) -> None:
        self.structure = structure
        self.scale = scale
        self.values = structure.tracer.values
        self.terms = Terms(structure.solution)
        self.entries: list[_Entry] = []

    def term(self, constant: float, parts: Sequence[Ids], scaled: bool = False) -> Term:
        """constant * product of the counts of the vectors.

        scaled: to the wanted batch, where the traced one divides what is counted.
        """
        term = self.terms.add(constant, parts)
        if scaled and self.terms.full(term) % self.structure.captured.batch == 0:
            return term[0] * self.scale, term[1]
        return term

    def read(self, node: fx.Node, works: Sequence[Any]) -> None:
        operation: Any = getattr(node.target, "overloadpacket", node.target)
        given: Any = node.args
        if operation in CONVOLUTIONS:
            self._convolution(node, CONVOLUTIONS[operation])
        elif operation is aten.scaled_dot_product_attention:
            query, key = (self.values[operand] for operand in given[:2])
            value = self.values[given[2]]
            self._add(node, "attention", (), [
                self.term(1, query[:-2], scaled=True), self.term(1, query[-2:-1]),
                self.term(1, key[-2:-1]), self.term(1, key[-1:]), self.term(1, value[-1:]),
            ])  # fmt: skip
        elif operation in RECURRENT:
            self._recurrent(node, RECURRENT[operation])
        else:
            for work in works:
                self._product(node, work)

    def _convolution(self, node: fx.Node, transposed: bool) -> None:
        bound = _bound(node)
        x, weight = self.values[bound["input"]], self.values[bound["weight"]]
        space = len(weight) - 2
        channel = len(x) - space - 1
        settings = (
            transposed,
            tuple(len(ids) for ids in x[channel + 1 :]),
            tuple(len(ids) for ids in weight[2:]),
            *(_each(bound.get(key, default), space)
              for key, default in (("stride", 1), ("padding", 0), ("dilation", 1))),
            _each(bound.get("output_padding", 0), space),
        )  # fmt: skip
        result = self.values[node]
        self._add(node, "convolution", settings, [
            self.term(1, x[:channel], scaled=True), self.term(1, [x[channel]]),
            self.term(1, [result[channel]]), self.term(1, [weight[1]]),
        ])  # fmt: skip

    def _recurrent(self, node: fx.Node, kind: str) -> None:
        bound = _bound(node)
        source, state = bound["input"], bound["hx"]
        x = self.values[source]
        state = self.values.get(state[0] if isinstance(state, (list, tuple)) else state)
        weights = [self.values[p] for p in bound["params"]]
        steps, batch = (1, 0) if bound.get("batch_first") else (0, 1)
        hidden = weights[1][1] if state is None else state[-1]
        settings = (kind, bound["num_layers"], bool(bound["bidirectional"]))
        self._add(node, "recurrent", settings, [
            self.term(1, [x[steps]]), self.term(1, [x[batch]], scaled=True),
            self.term(1, [x[-1]]), self.term(1, [hidden]),
        ])  # fmt: skip

    def _product(self, node: fx.Node, work: Any) -> None:
        """A matrix product: with a weight all that is in front of the outputs are rows."""
        if len(work.vectors) < 2:
            return
        *lead, inner = work.vectors
        weight = any(
            self.structure.tracer.weights.get(operand) or operand.op == "get_attr"
            for operand in node.all_input_nodes
        )
        columns = lead[-1:]
        if weight or len(lead) < 3:
            self._add(node, "linear", (), [
                self.term(work.constant, lead[:-1], scaled=True), self.term(1, [inner]),
                self.term(1, columns),
            ])  # fmt: skip
        else:
            self._add(node, "product", (), [
                self.term(work.constant, lead[:-2], scaled=True), self.term(1, lead[-2:-1]),
                self.term(1, [inner]), self.term(1, columns),
            ])  # fmt: skip

    def _add(self, node: fx.Node, kind: Kind, settings: tuple[Any, ...], terms: list[Any]) -> None:
        self.entries.append(_Entry(node, kind, settings, tuple(terms)))

    def finished(self, written: Sequence[tuple[fx.Node, Term]]) -> Layers:
        layers = [(entry.node, term) for entry in self.entries for term in entry.terms]
        layers += written
        terms = [term for _, term in layers]
        longest = max((len(numbers) for _, numbers in terms), default=0)
        counter = self.terms.counter()
        one = len(counter.starts)  # counts end with a 1
        factors = np.full((len(terms), max(1, longest)), one, np.int64)
        for row, (_, numbers) in enumerate(terms):
            factors[row, : len(numbers)] = numbers
        lengths = [len(entry.terms) for entry in self.entries]
        return Layers(
            self.structure,
            tuple(entry.node.name for entry in self.entries),
            tuple(entry.kind for entry in self.entries),
            tuple(entry.settings for entry in self.entries),
            tuple(np.cumsum([0, *lengths])[:-1].tolist()) if lengths else (),
            tuple(node for node, _ in layers),
            counter,
            np.array([constant for constant, _ in terms], np.float64),
            factors,
            len(written),
        )


def _layer(kind: Kind, settings: tuple[Any, ...], sizes: list[int]) -> Layer:
    """Sizes as they were read, in those of ``Layer``."""
    if kind == "convolution":
        batch, inputs, outputs, inside = sizes
        transposed = settings[0]
        groups = outputs // inside if transposed and inside else inputs // max(inside, 1)
        groups = max(groups, 1)
        return Layer(
            kind, (groups, inputs // groups, outputs // groups), (max(batch, 1), *settings)
        )
    if kind == "recurrent":
        steps, batch, inputs, hidden = sizes
        return Layer(kind, (inputs, hidden), (steps, max(batch, 1), *settings))
    return Layer(kind, tuple(sizes), settings)


def _bound(node: fx.Node) -> dict[str, Any]:
    """Arguments of a node by the names of its schema."""
    assert isinstance(node.target, torch._ops.OpOverload)
    names = [argument.name for argument in node.target._schema.arguments]
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _each(value: Any, count: int) -> Any:
    """One number for each dimension; ``same`` and ``valid`` as they are."""
    if isinstance(value, str):
        return value
    values = [value] if isinstance(value, int) else list(value)
    return tuple(int(v) for v in (values * count if len(values) == 1 else values))


def multiply_adds(layer: Layer) -> float:
    """Of one run of a layer; what a layer costs where nothing was measured is taken from it."""
    sizes, settings = layer.sizes, layer.settings
    if layer.kind == "convolution":
        batch, transposed, space, kernel = settings[:4]
        places = math.prod(space if transposed else _places(*settings[2:7]))
        return batch * places * math.prod(kernel) * math.prod(sizes)
    if layer.kind == "attention":
        lead, queries, keys, width, values = sizes
        return lead * queries * keys * (width + values)
    if layer.kind == "recurrent":
        steps, batch, kind, layers, both = settings
        gates = {"lstm": 4, "gru": 3}.get(kind, 1)
        inputs, hidden = sizes
        later = (layers - 1) * (1 + both) * hidden
        return steps * batch * gates * hidden * (1 + both) * (inputs + later + layers * hidden)
    return math.prod(sizes)


def _places(space: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> list[int]:
    """Where a convolution looks, along each dimension."""
    if padding == "same":
        return [-(-size // step) for size, step in zip(space, stride, strict=True)]
    pads = [0] * len(space) if padding == "valid" else padding
    return [
        (size + 2 * pad - wide * (k - 1) - 1) // step + 1
        for size, k, step, pad, wide in zip(space, kernel, stride, pads, dilation, strict=True)
    ]

"""Fused recurrent operations of a captured graph, layer by layer and one direction at a time.

Each is two linear maps: of the sequence that the layer reads, and of its own last answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from secateur.repair.readers import Reader
from secateur.structure.structure import Structure

aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Recurrence:
    """One layer in one direction.

    node:    the fused operation. number: of the layer and direction among its states.
    weights: names of the input's weight, the hidden one, their biases where there are some, and
             the projection where there is one: in the order of the operation.
    bias:    whether there are biases. reverse: whether it runs from the end.
    """

    node: fx.Node
    number: int
    weights: tuple[str, ...]
    bias: bool
    reverse: bool

    @property
    def layer(self) -> int:
        """Its depth in the stack."""
        return self.number // (2 if _given(self.node)["bidirectional"] else 1)

    @property
    def projected(self) -> bool:
        """Whether a last map, of the hidden state, makes the answer."""
        return len(self.weights) in (3, 5)

    def maps(self) -> list[tuple[str, str]]:
        """(weight, bias or "") of the input's map and of the hidden one."""
        biases = self.weights[2:4] if self.bias else ("", "")
        return list(zip(self.weights[:2], biases, strict=True))

    def answers(self, x: Tensor, states: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
        """What it answers for a sequence x, in the order of time.

        states: of all layers. tensors: by name.
        """
        given = _given(self.node)
        time = _time(given)
        own = [state[self.number : self.number + 1] for state in states]
        operation: Any = self.node.target
        result = operation(
            x.flip(time) if self.reverse else x,
            own if operation.overloadpacket is aten.lstm else own[0],
            [tensors[name] for name in self.weights],
            self.bias, 1, 0.0, False, False, given["batch_first"],
        )[0]  # fmt: skip
        return result.flip(time) if self.reverse else result

    def before(self, answers: Tensor, states: Sequence[Tensor]) -> Tensor:
        """The answer that each step reads: the last one, and the first state at the beginning."""
        time = _time(_given(self.node))
        first = states[0][self.number].unsqueeze(time)
        count = answers.shape[time]
        if self.reverse:
            return torch.cat([answers.narrow(time, 1, count - 1), first], time)
        return torch.cat([first, answers.narrow(time, 0, count - 1)], time)


def recurrences(structure: Structure) -> dict[fx.Node, list[Recurrence]]:
    """All layers of each fused operation whose weights no other operation uses."""
    found = {}
    for node in structure.captured.module.graph.nodes:
        if getattr(node.target, "overloadpacket", None) in _CELLS:
            layers = _layers(structure, node)
            if layers:
                found[node] = layers
    return found


def inner_readers(found: Mapping[fx.Node, Sequence[Recurrence]]) -> list[Reader]:
    """The maps inside, as readers of what is no node of the graph."""
    return [
        Reader(node, node, weight, bias, 1)
        for node, layers in found.items()
        for layer in layers
        for weight, bias in layer.maps()
    ]


def _layers(structure: Structure, node: fx.Node) -> list[Recurrence]:
    given = _given(node)
    nodes = given["params"]
    if any(n.op != "get_attr" or len(n.users) != 1 for n in nodes):
        return []
    names = [structure.aliases.get(str(n.target), str(n.target)) for n in nodes]
    if not given["batch"] or len(set(names)) < len(names) or set(names) - structure.shapes.keys():
        return []
    directions = 2 if given["bidirectional"] else 1
    count = given["num_layers"] * directions
    size = len(names) // count
    return [
        Recurrence(node, number, tuple(names[number * size : (number + 1) * size]),
                   given["has_biases"], number % directions == 1)
        for number in range(count)
    ]  # fmt: skip


def _given(node: fx.Node) -> dict[str, Any]:
    """Arguments by name; ``batch``: whether there is a dimension of samples."""
    names = ("x", "hx", "params", "has_biases", "num_layers", "dropout", "train",
             "bidirectional", "batch_first")  # fmt: skip
    given: dict[str, Any] = dict(zip(names, node.args, strict=False))
    given["batch"] = len(given["x"].meta["val"].shape) == 3
    return given


def _time(given: Mapping[str, Any]) -> int:
    return 1 if given["batch_first"] else 0


def state_nodes(node: fx.Node) -> list[fx.Node]:
    """What gives the first states of a fused operation; an LSTM has two."""
    states: Any = node.args[1]
    return list(states) if isinstance(states, (list, tuple)) else [states]


def sequences(
    layers: Sequence[Recurrence],
    given: Sequence[Tensor],
    states: Sequence[Sequence[Tensor]],
    tensors: Mapping[str, Tensor],
    before: Callable[[Recurrence, list[Tensor]], None] = lambda layer, x: None,
) -> dict[Recurrence, tuple[list[Tensor], list[Tensor]]]:
    """What each layer reads and answers, for every batch.

    given: what the operation reads, states: its first states, of every batch. before: called
    with each layer and what it reads, before it runs.
    """
    found: dict[Recurrence, tuple[list[Tensor], list[Tensor]]] = {}
    x = list(given)
    for depth in range(max(layer.layer for layer in layers) + 1):
        parts = []
        for layer in (each for each in layers if each.layer == depth):
            before(layer, x)
            answers = [layer.answers(one, own, tensors) for one, own in zip(x, states, strict=True)]
            found[layer] = x, answers
            parts.append(answers)
        x = [torch.cat(some, -1) for some in zip(*parts, strict=True)]
    return found


Tell = Callable[[Recurrence, str, Tensor, Tensor], Tensor]


def unrolled(
    layers: Sequence[Recurrence],
    x: Tensor,
    states: Sequence[Tensor],
    tensors: Mapping[str, Tensor],
    tell: Tell,
) -> tuple[Tensor, ...]:
    """The results of a fused operation, one step of time after the other.

    tell: called with a layer, the name of a weight, what it maps and what it answers; returns the
    answer to go on with. The map of the input is asked for all steps at once.
    """
    time = _time(_given(layers[0].node))
    ends: list[list[Tensor]] = []
    for depth in range(max(layer.layer for layer in layers) + 1):
        parts = []
        for layer in (each for each in layers if each.layer == depth):
            own = [state[layer.number] for state in states]
            answers, last = _steps(layer, x, own, tensors, time, tell)
            parts.append(answers)
            ends.append(last)
        x = torch.cat(parts, -1)
    return x, *(torch.stack(some) for some in zip(*ends, strict=True))


def _steps(
    layer: Recurrence,
    x: Tensor,
    states: list[Tensor],
    tensors: Mapping[str, Tensor],
    time: int,
    tell: Tell,
) -> tuple[Tensor, list[Tensor]]:
    (outer, bias), (inner, inner_bias) = layer.maps()
    operation: Any = layer.node.target
    cell = _CELLS[operation.overloadpacket]
    wide = tell(layer, outer, x, functional.linear(x, tensors[outer], tensors.get(bias)))
    steps = wide.unbind(time)
    answers = []
    for step in reversed(steps) if layer.reverse else steps:
        mapped = functional.linear(states[0], tensors[inner], tensors.get(inner_bias))
        states = cell(step, tell(layer, inner, states[0], mapped), states)
        if layer.projected:
            states[0] = functional.linear(states[0], tensors[layer.weights[-1]])
        answers.append(states[0])
    return torch.stack(answers[::-1] if layer.reverse else answers, time), states


def _lstm(x: Tensor, h: Tensor, states: list[Tensor]) -> list[Tensor]:
    enter, forget, new, leave = (x + h).chunk(4, -1)
    cell = forget.sigmoid() * states[1] + enter.sigmoid() * new.tanh()
    return [leave.sigmoid() * cell.tanh(), cell]


def _gru(x: Tensor, h: Tensor, states: list[Tensor]) -> list[Tensor]:
    (reset, keep, new), (own_reset, own_keep, own_new) = x.chunk(3, -1), h.chunk(3, -1)
    keep = (keep + own_keep).sigmoid()
    new = (new + (reset + own_reset).sigmoid() * own_new).tanh()
    return [(1 - keep) * new + keep * states[0]]


_CELLS: dict[Any, Callable[[Tensor, Tensor, list[Tensor]], list[Tensor]]] = {
    aten.lstm: _lstm,
    aten.gru: _gru,
    aten.rnn_tanh: lambda x, h, states: [(x + h).tanh()],
    aten.rnn_relu: lambda x, h, states: [(x + h).relu()],
}

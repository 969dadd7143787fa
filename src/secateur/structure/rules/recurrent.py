"""Recurrent layers: gates are stacked in one weight; hidden units leave in all layers at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import fx

from secateur.structure.axes import Ids, signed
from secateur.structure.tracer import Tracer, rule
from secateur.structure.values import Value

aten = torch.ops.aten
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def recurrent(
    tracer: Tracer,
    node: fx.Node,
    x: Value,
    state: Value | list[Value],
    parameters: Sequence[Value],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    *,
    gates: int,
) -> list[Value]:
    """x [.., .., in]; weights [gates * hidden, in]; every layer keeps one hidden size."""
    states = list(state) if isinstance(state, list) else [state]
    directions = 2 if bidirectional else 1
    projected = len(parameters) == num_layers * directions * (5 if has_biases else 3)
    per_layer = (4 if has_biases else 2) + int(projected)
    inputs = x[-1]
    for layer in range(num_layers):
        outputs: list[Ids] = []
        for direction in range(directions):
            start = (layer * directions + direction) * per_layer
            weights = parameters[start : start + per_layer]
            outputs.append(
                _cell(tracer, node, inputs, states, weights, gates, projected, x.shape[:-1])
            )
        inputs = np.concatenate(outputs)
    steps = [-np.abs(ids) for ids in x[:-1]]
    for ids in x[:-1]:
        tracer.pin(ids, "a recurrence runs over it")
    if projected or gates == 1:  # the last thing that runs is a layer
        return [Value([*steps, inputs]), *states]
    held = _held(states, states[0][-1])
    inputs = signed(inputs, (inputs > 0) & ~np.tile(held, directions))
    last = [Value([*(-np.abs(d) for d in s[:-1]), signed(s[-1], ~held)]) for s in states]
    return [Value([*steps, inputs]), *last]


@rule("secateur.packed_recurrence")
def packed(
    tracer: Tracer,
    node: fx.Node,
    x: Value,
    lengths: Value,
    kind: str,
    states: list[Value],
    parameters: Sequence[Value],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> list[Value]:
    """The same over sequences of unequal lengths [steps, batch, in], zero past their end."""
    given = states if kind == "lstm" else states[0]
    return recurrent(
        tracer, node, x, given, parameters, has_biases, num_layers, dropout, train, bidirectional,
        False, gates=GATES[kind],
    )  # fmt: skip


def single_step(
    tracer: Tracer,
    node: fx.Node,
    x: Value,
    state: Value | list[Value],
    input_weight: Value,
    hidden_weight: Value,
    *biases: Value | None,
    gates: int,
) -> Value | list[Value]:
    """x [.., in], state [.., hidden]: one step of a cell; an LSTM has two states."""
    states = list(state) if isinstance(state, list) else [state]
    weights = [input_weight, hidden_weight, *(bias for bias in biases if bias is not None)]
    hidden = _cell(tracer, node, x[-1], states, weights, gates, False, x.shape[:-1])
    for value in (x, *states):
        for ids in value[:-1]:
            tracer.pin(ids, "a recurrence runs over it")
    steps = [-np.abs(ids) for ids in x[:-1]]
    if gates > 1:
        hidden = signed(hidden, (hidden > 0) & ~_held(states, hidden))
    result = [Value([*steps, hidden]) for _ in states]
    return result if isinstance(state, list) else result[0]


def _held(states: Sequence[Value], hidden: Ids) -> np.ndarray:
    """bool [hidden]: where a gate lets half of an old state through that was not zero."""
    return np.any([np.broadcast_to(state[-1] < 0, hidden.shape) for state in states], axis=0)


def _cell(
    tracer: Tracer,
    node: fx.Node,
    inputs: Ids,
    states: list[Value],
    weights: Sequence[Value],
    gates: int,
    projected: bool,
    steps: tuple[int, ...],
) -> Ids:
    """One layer in one direction; returns the ids of its output."""
    tracer.contract(node, inputs, weights[0][1], weight=True)
    hidden = _per_gate(tracer, weights[0][0], gates)
    for stacked in [weights[1], *weights[2 : len(weights) - int(projected)]]:
        tracer.axes.same(hidden, _per_gate(tracer, stacked[0], gates))
        tracer.produce(stacked[0])
    tracer.produce(weights[0][0])
    places = [np.zeros(int(np.prod(steps)), np.int64)]
    tracer.work(node, 1, [*places, weights[0][0], weights[0][1]])
    tracer.work(node, 1, [*places, weights[1][0], weights[1][1]])
    output = hidden
    if projected:  # weight_hr [projection, hidden]
        tracer.contract(node, hidden, weights[-1][1], weight=True)
        output = weights[-1][0]
        tracer.produce(output)
        tracer.work(node, 1, [*places, *weights[-1]])
    tracer.contract(node, output, weights[1][1], weight=True)
    for number, state in enumerate(states):
        tracer.axes.same(state[-1], output if number == 0 else hidden)
    return output


def _per_gate(tracer: Tracer, stacked: Ids, gates: int) -> Ids:
    """Ids of the hidden units behind [gates * hidden] rows."""
    if gates == 1:
        return stacked
    gate, hidden = tracer.axes.split(stacked, [gates, len(stacked) // gates])
    tracer.pin(gate, "it is one of the gates")
    return hidden


for _kind, _gates in GATES.items():
    rule(getattr(aten, _kind))(partial(recurrent, gates=_gates))
    rule(getattr(aten, f"{_kind}_cell"))(partial(single_step, gates=_gates))

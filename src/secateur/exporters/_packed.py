"""Recurrent layers over packed sequences in ONNX, whose own layers take lengths."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

import secateur.structure.packed  # noqa: F401  (registers the operation)

_NAMES = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN", "rnn_relu": "RNN"}
# ONNX stacks the gates of an LSTM as input, output, forget, cell; of a GRU as update, reset, new.
_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn_tanh": (0,), "rnn_relu": (0,)}


def has_packed(graph: fx.Graph) -> bool:
    """Whether the graph of a captured model runs a recurrent layer over packed sequences."""
    packed = torch.ops.secateur.packed_recurrence.default
    return any(node.target is packed for node in graph.nodes)


def translations() -> dict[Any, Any]:
    """What ``torch.onnx.export`` is given to translate it."""
    return {torch.ops.secateur.packed_recurrence.default: _translate}


def _translate(
    x: Any, lengths: Any, kind: str, states: Any, parameters: Any, has_biases: bool,
    num_layers: int, dropout: float, train: bool, bidirectional: bool,
) -> Any:  # fmt: skip
    """One layer of ONNX for each layer and direction; the backward ones read it reversed.

    OpenVINO takes no lengths where it runs backwards, and its last state from past the end.
    """
    from onnxscript import opset18 as op

    directions = 2 if bidirectional else 1
    per_layer = len(parameters) // (num_layers * directions)
    if per_layer != (4 if has_biases else 2):
        raise NotImplementedError("ONNX has no recurrent layer that projects its answer")
    hidden = states[0].shape[-1]
    settings: dict[str, Any] = {"hidden_size": hidden}
    if kind == "gru":
        settings["linear_before_reset"] = 1
    elif kind != "lstm":
        settings["activations"] = ["Tanh" if kind == "rnn_tanh" else "Relu"]
    counts = op.Cast(lengths, to=6)  # int32
    end = op.Reshape(op.Sub(lengths, op.Constant(value_int=1)), [1, -1, 1])

    def ordered(stacked: Any) -> Any:
        gates = [op.Slice(stacked, [g * hidden], [(g + 1) * hidden], [0]) for g in _GATES[kind]]
        return op.Concat(*gates, axis=0)

    def turned(sequence: Any, number: int) -> Any:
        if number % directions == 0:
            return sequence
        return op.ReverseSequence(sequence, lengths, batch_axis=1, time_axis=0)

    last: list[list[Any]] = [[] for _ in states]
    for layer in range(num_layers):
        both = []
        for number in range(layer * directions, (layer + 1) * directions):
            weights = [ordered(p) for p in parameters[number * per_layer :][:per_layer]]
            bias = op.Unsqueeze(op.Concat(*weights[2:], axis=0), [0]) if has_biases else None
            own = [op.Slice(state, [number], [number + 1], [0]) for state in states]
            outer, inner = (op.Unsqueeze(weight, [0]) for weight in weights[:2])
            answers, _, *cells = getattr(op, _NAMES[kind])(
                turned(x, number), outer, inner, bias, counts, *own, **settings
            )
            answers = op.Squeeze(answers, [1])
            state = op.GatherElements(answers, op.Expand(end, [1, 1, hidden]), axis=0)
            for held, ended in zip(last, [state, *cells], strict=False):
                held.append(ended)
            both.append(turned(answers, number))
        x = op.Concat(*both, axis=2)
    return [x, *(op.Concat(*some, axis=0) for some in last)]

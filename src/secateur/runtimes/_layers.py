"""A single layer of a latency table, as ONNX; ``_modules.py`` has it for PyTorch.

It is built with what usually runs in the same step: a convolution with its bias and a
rectifier, a linear layer with its bias.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur.errors import InputError

if TYPE_CHECKING:
    from secateur.measure.layer import Layer

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def input_shapes(layer: Layer) -> list[tuple[int, ...]]:
    """Of what a layer takes."""
    sizes, settings = layer.sizes, layer.settings
    if layer.kind == "convolution":
        return [(settings[0], sizes[0] * sizes[1], *settings[2])]
    if layer.kind == "linear":
        return [(sizes[0], sizes[1])]
    if layer.kind == "product":
        batch, rows, inner, columns = sizes
        return [(batch, rows, inner), (batch, inner, columns)]
    if layer.kind == "attention":
        lead, queries, keys, width, values = sizes
        return [(lead, queries, width), (lead, keys, width), (lead, keys, values)]
    return [(settings[0], settings[1], sizes[0])]


def random_inputs(layer: Layer) -> list[np.ndarray]:
    """Standard normal values of the shapes that a layer takes."""
    generator = np.random.default_rng(0)
    return [generator.standard_normal(s, np.float32) for s in input_shapes(layer)]


def as_onnx(layer: Layer) -> bytes:
    """The layer as an ONNX file, in memory. Errors: InputError without the package onnx."""
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise InputError(
            f"onnx cannot be imported ({error}); pip install secateur[onnx]"
        ) from error
    generator = np.random.default_rng(0)
    weights: list[Any] = []

    def weight(name: str, *shape: int) -> str:
        fan = max(1, math.prod(shape[1:]))
        values = generator.standard_normal(shape, np.float32) / np.float32(math.sqrt(fan))
        weights.append(numpy_helper.from_array(values, name))
        return name

    names = [f"x{i}" for i in range(len(input_shapes(layer)))]
    rank = 2 + len(layer.settings[2]) if layer.kind == "convolution" else 3
    rank = 2 if layer.kind == "linear" else rank
    nodes = _nodes(layer, names, weight, helper.make_node)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(names, input_shapes(layer), strict=True)
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)
    graph = helper.make_graph(nodes, "layer", inputs, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _nodes(layer: Layer, names: list[str], weight: Any, node: Any) -> list[Any]:
    sizes, settings = layer.sizes, layer.settings
    if layer.kind == "convolution":
        _, transposed, _, kernel, stride, padding, dilation, extra = settings
        groups, inputs, outputs = sizes
        shape = (groups * inputs, outputs) if transposed else (groups * outputs, inputs)
        attributes: dict[str, Any] = {
            "kernel_shape": kernel, "strides": stride, "dilations": dilation, "group": groups,
        }  # fmt: skip
        if padding == "same":
            attributes["auto_pad"] = "SAME_UPPER"
        elif padding != "valid":
            attributes["pads"] = [*padding, *padding]
        if transposed and any(extra):
            attributes["output_padding"] = extra
        given = [names[0], weight("w", *shape, *kernel), weight("b", groups * outputs)]
        kind = "ConvTranspose" if transposed else "Conv"
        return [node(kind, given, ["h"], **attributes), node("Relu", ["h"], ["y"])]
    if layer.kind == "linear":
        given = [names[0], weight("w", sizes[2], sizes[1]), weight("b", sizes[2])]
        return [node("Gemm", given, ["y"], transB=1)]
    if layer.kind == "product":
        return [node("MatMul", names, ["y"])]
    if layer.kind == "attention":
        return [
            node("Transpose", [names[1]], ["k"], perm=[0, 2, 1]),
            node("MatMul", [names[0], "k"], ["s"]),
            node("Softmax", ["s"], ["p"], axis=-1),
            node("MatMul", ["p", names[2]], ["y"]),
        ]
    return _recurrent(sizes, settings, names, weight, node)


def _recurrent(
    sizes: tuple[int, ...], settings: tuple[Any, ...], names: list[str], weight: Any, node: Any
) -> list[Any]:
    """Layers in a row; the directions' outputs stand side by side after each."""
    kind, layers, both = settings[2:]
    inputs, hidden = sizes
    directions, gates = 1 + both, GATES[kind]
    operation = {"lstm": "LSTM", "gru": "GRU"}.get(kind, "RNN")
    nodes, at = [], names[0]
    for number in range(layers):
        given = [
            at,
            weight(f"w{number}", directions, gates * hidden, inputs),
            weight(f"r{number}", directions, gates * hidden, hidden),
            weight(f"b{number}", directions, 2 * gates * hidden),
        ]
        last = number == layers - 1
        nodes.append(node(operation, given, [f"h{number}"], hidden_size=hidden,
                          direction="bidirectional" if both else "forward"))  # fmt: skip
        nodes.append(node("Transpose", [f"h{number}"], [f"t{number}"], perm=[0, 2, 1, 3]))
        shape = f"s{number}"
        nodes.append(node("Constant", [], [shape], value_ints=[0, 0, -1]))
        at = "y" if last else f"o{number}"
        nodes.append(node("Reshape", [f"t{number}", shape], [at]))
        inputs = directions * hidden
    return nodes

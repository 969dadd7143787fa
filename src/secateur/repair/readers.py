"""Operations of a captured graph that are a linear map of what they read: Y = W X.

A convolution is one over its windows, a transposed one over the windows of the input spread out
by its stride, a grouped one is one map for each of its groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from secateur.structure.parts import belongs
from secateur.structure.structure import Structure

aten = torch.ops.aten

_CONVOLUTIONS = (aten.conv1d, aten.conv2d, aten.conv3d)
_TRANSPOSED = (aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d)
_PRODUCTS = {aten.linear: (1, 0, 2), aten.addmm: (2, 1, 0), aten.matmul: (1, 0, None),
             aten.mm: (1, 0, None)}  # operation -> places of weight, input, bias  # fmt: skip


@dataclass(frozen=True, eq=False)
class Reader:
    """A node that maps its input by one parameter.

    node:   of the captured eval graph. x: the node that it reads; ``node`` itself for a map
            inside of a fused operation.
    weight: name of the parameter; bias: of the other one, or "".
    dim:    dimension of the weight that meets the input's channels.
    groups: of a grouped convolution; each is a map of its own.
    slides: stride, padding and dilation of a convolution, one number for each dimension of the
            image; None for a plain product.
    spread: whether the convolution is a transposed one.
    """

    node: fx.Node
    x: fx.Node
    weight: str
    bias: str
    dim: int
    groups: int = 1
    slides: tuple[tuple[int, ...], ...] | None = None
    spread: bool = False


def every_use(structure: Structure) -> list[Reader]:
    """All readers in the order in which the graph runs them."""
    graph = structure.captured.module.graph
    return [reader for node in graph.nodes if (reader := _reader(structure, node)) is not None]


def readers(structure: Structure) -> list[Reader]:
    """Those whose weight no other operation uses: what is best for one is not for the other."""
    uses = _users(structure)
    return [reader for reader in every_use(structure) if uses[reader.weight] == 1]


def shared_readers(structure: Structure) -> list[list[Reader]]:
    """All uses of each weight that several operations use, where they use it alike."""
    uses = _users(structure)
    by_weight: dict[str, list[Reader]] = {}
    for reader in every_use(structure):
        by_weight.setdefault(reader.weight, []).append(reader)
    return [
        found
        for weight, found in by_weight.items()
        if 1 < len(found) == uses[weight]
        and len({(r.bias, r.dim, r.groups, r.slides, r.spread) for r in found}) == 1
    ]


def _users(structure: Structure) -> Counter[str]:
    """How many operations use each tensor."""
    uses: Counter[str] = Counter()
    for node in structure.captured.module.graph.nodes:
        if node.op == "get_attr":
            name = structure.aliases.get(str(node.target), str(node.target))
            uses[name] += len(node.users)
    return uses


def _reader(structure: Structure, node: fx.Node) -> Reader | None:
    operation: Any = getattr(node.target, "overloadpacket", None)
    if operation in _PRODUCTS:
        weight, x, bias = (_argument(node, place) for place in _PRODUCTS[operation])
        name = _parameter(structure, weight)
        if not name or not isinstance(x, fx.Node) or len(structure.shapes[name]) != 2:
            return None
        dim = 1 if operation is aten.linear else 0
        return Reader(node, x, name, _parameter(structure, bias), dim)
    if operation not in _CONVOLUTIONS and operation not in _TRANSPOSED:
        return None
    given = _arguments(node)
    name, x = _parameter(structure, given["weight"]), given["input"]
    padding = given["padding"]
    if not name or not isinstance(x, fx.Node) or isinstance(padding, str):
        return None
    space = len(structure.shapes[name]) - 2
    slides = [_each(given[key], space) for key in ("stride", "padding", "dilation")]
    if operation in _TRANSPOSED:
        slides.append(_each(given["output_padding"], space))
    if len(x.meta["val"].shape) != space + 2:  # an image without a batch
        return None
    spread = operation in _TRANSPOSED
    bias = _parameter(structure, given.get("bias"))
    return Reader(node, x, name, bias, 0 if spread else 1, given["groups"], tuple(slides), spread)


def _argument(node: fx.Node, place: int | None) -> Any:
    return node.args[place] if place is not None and place < len(node.args) else None


def _arguments(node: fx.Node) -> dict[str, Any]:
    """By name, defaults included."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = {argument.name: argument.default_value for argument in schema}
    given |= dict(zip((argument.name for argument in schema), node.args, strict=False))
    return given | dict(node.kwargs)


def _each(value: Any, space: int) -> tuple[int, ...]:
    values = [value] if isinstance(value, int) else list(value)
    return tuple(values * space if len(values) == 1 else values)


def _parameter(structure: Structure, node: Any) -> str:
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return ""
    name = structure.aliases.get(str(node.target), str(node.target))
    known = name in structure.shapes and name not in structure.tracer.buffers
    return name if known and not shared_outside(structure, name) else ""


def shared_outside(structure: Structure, name: str) -> bool:
    """Whether a tensor of a part has a name outside of it as well."""
    if not structure.part:
        return False
    names = [name, *(alias for alias, first in structure.aliases.items() if first == name)]
    return not all(belongs(each, structure.part) for each in names)


def matrices(reader: Reader, weight: Tensor) -> Tensor:
    """The maps [groups, outputs, inputs] of a weight; inputs are channels times kernel places."""
    if reader.slides is None:
        return (weight if reader.dim == 1 else weight.t())[None]
    if reader.spread:  # [in, out / groups, *kernel] -> [groups, out / groups, in / groups * kernel]
        kernel = weight.flatten(2).flip(2)
        split = kernel.unflatten(0, (reader.groups, -1))
        return split.transpose(1, 2).flatten(2)
    return weight.flatten(1).unflatten(0, (reader.groups, -1))


def weight_of(reader: Reader, maps: Tensor, like: Tensor) -> Tensor:
    """The weight whose maps these are; the inverse of ``matrices``."""
    if reader.slides is None:
        return maps[0] if reader.dim == 1 else maps[0].t()
    if reader.spread:
        places = like[0, 0].numel()
        split = maps.unflatten(2, (-1, places)).transpose(1, 2)
        return split.flatten(0, 1).flip(2).reshape(like.shape)
    return maps.flatten(0, 1).reshape(like.shape)


def columns(reader: Reader, index: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Inputs of the maps [units, k * kernel places] for indices [units, k] of the read dimension.

    shape: of the weight. Of a grouped transposed convolution, whose read dimension holds all
    groups, the indices are those within a group.
    """
    places = int(np.prod(shape[2:])) if reader.slides is not None else 1
    found = index[:, :, None] * places + np.arange(places)
    return found.reshape(len(index), -1)

"""Random networks: a program of pieces over numbered tensors, and the module that runs one.

Tensors are numbered: the inputs first, then the results of every node in turn. A network prints
as Python that builds it again:

    Network(inputs=(Value((3, 4, 4), (True, True, True)),), nodes=(Node((0,), Convolution(4, 3)),),
            outputs=(1,)).build()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from .attention import ATTENTION, attentions, is_text
from .blocks import BLOCKS
from .folding import FOLDING
from .joins import joins
from .layers import LAYERS, Convolution, Embedding, Linear
from .movement import MOVEMENT, Move
from .pointwise import POINTWISE, Activation
from .series import SERIES
from .values import LARGEST, Fixed, Option, Piece, Value

OPTIONS = (*LAYERS, *BLOCKS, *ATTENTION, *POINTWISE, *MOVEMENT, *FOLDING, *SERIES)
RECENT = 6  # tensors that a new node may take


@dataclass(frozen=True)
class Node:
    """A piece and the numbers of the tensors it takes.

    again: number of the node whose module is called instead of a new one.
    tied:  number of the node whose weight the new module shares.
    """

    operands: tuple[int, ...]
    piece: Piece
    again: int | None = None
    tied: int | None = None


@dataclass(frozen=True)
class Network:
    """A program.

    outputs:    numbers of the tensors it returns.
    exact_only: it has statistics that the oracle cannot take over survivors; groups that are
                called exact must be so all the same.
    """

    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    exact_only: bool = False

    def build(self) -> Model:
        """The module, with torch's own initial weights."""
        return Model(self)

    def example(self, batch: int = 2) -> tuple[Tensor, ...]:
        """Random inputs."""
        generator = torch.Generator().manual_seed(1)
        return tuple(value.example(batch, generator) for value in self.inputs)


class Model(nn.Module):
    """Runs a network."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        program = Program(network.inputs, network.exact_only)
        for node in network.nodes:
            program.add(node)
        self.network = network
        self.steps = nn.ModuleDict({str(n): module for n, module in program.modules.items()})

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        values = list(inputs)
        for number, node in enumerate(self.network.nodes):
            module = self.steps[str(number if node.again is None else node.again)]
            result = module(*(values[i] for i in node.operands))
            values += result if isinstance(result, tuple) else [result]
        outputs = tuple(values[i] for i in self.network.outputs)
        return outputs[0] if len(outputs) == 1 else outputs


class Program:
    """A network in the making: its nodes, their modules, and every tensor as it is known.

    careless: every dimension counts as fixed, so that any statistic may run over it.
    """

    def __init__(self, inputs: tuple[Value, ...], careless: bool) -> None:
        self.careless = careless
        self.nodes: list[Node] = []
        self.modules: dict[int, nn.Module] = {}
        self.values: list[Value] = list(inputs)
        self.inputs = len(inputs)
        self.used: set[int] = set()

    def add(self, node: Node) -> bool:
        """Append a node; False, and nothing happens, where a result would be unwieldy."""
        operands = [self.values[i] for i in node.operands]
        module = self._module(node, operands)
        with torch.no_grad():
            result = module.double().eval()(*(value.example(2) for value in operands))
        results = result if isinstance(result, tuple) else (result,)
        shapes = [tuple(x.shape[1:]) for x in results]
        if any(len(s) not in (1, 2, 3, 4) or not 1 < torch.Size(s).numel() <= LARGEST
               for s in shapes):  # fmt: skip
            return False
        flags = node.piece.fixed(operands)
        for shape, fixed in zip(shapes, flags, strict=True):
            assert len(shape) == len(fixed), (node, shape, fixed)
            sure = (self.careless or f or n == 1 for f, n in zip(fixed, shape, strict=True))
            self.values.append(Value(shape, tuple(sure)))
        if node.again is None:
            self.modules[len(self.nodes)] = module
        self.used.update(node.operands)
        self.nodes.append(node)
        return True

    def _module(self, node: Node, operands: list[Value]) -> nn.Module:
        if node.again is not None:
            return self.modules[node.again]
        module = node.piece.build(operands)
        if node.tied is not None:
            module.weight = self.modules[node.tied].weight
        return module

    def loose(self) -> list[int]:
        """Tensors that nothing takes."""
        return [i for i in range(len(self.values)) if i not in self.used]


INPUTS = {
    "image": lambda draw: (3, draw(st.integers(3, 6)), draw(st.integers(3, 6))),
    "tokens": lambda draw: (draw(st.integers(3, 5)), draw(st.integers(2, 6))),
    "vector": lambda draw: (draw(st.integers(2, 6)),),
    "text": lambda draw: (draw(st.integers(3, 5)),),
}


@st.composite
def networks(draw: st.DrawFn, largest: int) -> Network:
    """A network of up to ``largest`` pieces beside its first layers and its read-outs."""
    inputs = []
    for kind in draw(st.lists(st.sampled_from(sorted(INPUTS)), min_size=1, max_size=2)):
        shape = INPUTS[kind](draw)
        inputs.append(Value(shape, (True,) * len(shape), 7 if kind == "text" else 0))
    exact_only = draw(st.sampled_from([False, False, True]))
    program = Program(tuple(inputs), exact_only)
    for number, value in enumerate(inputs):
        program.add(Node((number,), first_layer(draw, value)))
    for _ in range(draw(st.integers(2, largest))):
        node = drawn(draw, program)
        if node is not None:
            program.add(node)
    outputs = []
    for number in program.loose():
        piece = read_out(draw, program.values[number])
        if piece is not None and program.add(Node((number,), piece)):
            number = len(program.values) - 1
        outputs.append(number)
    return Network(tuple(inputs), tuple(program.nodes), tuple(outputs), exact_only)


def first_layer(draw: st.DrawFn, x: Value) -> Piece:
    """Something that makes channels."""
    if x.vocabulary:
        return Embedding(draw(st.sampled_from([4, 6, 8])))
    width = draw(st.sampled_from([4, 6, 8, 9]))
    if x.rank == 3:
        return Convolution(width, draw(st.sampled_from([1, 3])))
    return Linear(width)


def drawn(draw: st.DrawFn, program: Program) -> Node | None:
    """One more node, mostly on the newest tensor; None where what was drawn does not fit."""
    first, count = program.inputs, len(program.values)
    made = list(reversed(range(first, count)))[:RECENT]
    recent = made + [i for i in range(first) if not program.values[i].vocabulary]
    place = made[min(draw(st.sampled_from([0, 0, 0, 1, 2])), len(made) - 1)]
    x = program.values[place]
    kind = draw(st.sampled_from(["one", "one", "one", "one", "join", "join", "again"]))
    if kind == "join":
        other = draw(st.sampled_from(recent))
        y = program.values[other]
        if is_text(x) and is_text(y) and other != place and draw(st.booleans()):
            return Node((place, other), attentions(draw, x, y))
        piece = joins(draw, x, y)
        return None if piece is None else Node((place, other), piece)
    if kind == "again":
        return repeated(draw, program)
    option: Option = draw(st.sampled_from([o for o in OPTIONS if o.applies(x)]))
    return Node((place,), option.pieces(draw, x))


def repeated(draw: st.DrawFn, program: Program) -> Node | None:
    """A module called once more on tensors of the same shapes, or a weight shared by two."""
    values = program.values
    found: list[Node] = []
    for number, node in enumerate(program.nodes):
        if node.again is not None or isinstance(node.piece, Move | Activation):
            continue
        if len(node.operands) == 1:
            wanted = values[node.operands[0]]
            fitting = [i for i, v in enumerate(values) if v.shape == wanted.shape
                       and v.vocabulary == wanted.vocabulary
                       and not (any(wanted.fixed) and v.fixed != wanted.fixed)]  # fmt: skip
            found += [Node((i,), node.piece, again=number) for i in fitting[-3:]]
        weight = getattr(program.modules[number], "weight", None)
        if isinstance(weight, nn.Parameter) and isinstance(node.piece, Linear | Embedding):
            wide, inside = weight.shape
            layer = Linear(wide)
            found += [
                Node((i,), layer, tied=number)
                for i, v in enumerate(values)
                if v.shape[-1:] == (inside,) and not v.vocabulary
            ][-3:]
    return draw(st.sampled_from(found)) if found else None


def read_out(draw: st.DrawFn, x: Value) -> Piece | None:
    """What stands between a tensor and the output; None for nothing."""
    free = [d for d, fixed in enumerate(x.fixed) if not fixed]
    natural = "linear" if free == [x.rank - 1] or x.rank == 1 else "flat"
    if free == [0] and x.rank in (2, 3):
        natural = "convolution"
    # the ends of a list are drawn more often than its middle
    others = ["none", "linear", *(["convolution"] if x.rank in (2, 3) else [])]
    kinds = [natural] * 6 + others + ["flat"] * 6
    kind = draw(st.sampled_from(kinds))
    if x.vocabulary or kind == "none":
        return None
    if kind == "convolution":
        return Convolution(2, 1)
    return Flat() if kind == "flat" else Linear(2)


@dataclass(frozen=True)
class Flat:
    """All of a sample into one linear layer."""

    def build(self, values: Sequence[Value]) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(values[0].shape).numel(), 2))

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        return ((False,),)

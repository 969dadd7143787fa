"""Pruned graphs as TorchScript source, for what a tracer would hold as a number.

A graph computes sizes as whole numbers, and ``torch.jit.trace`` records those that it saw. Written
as the source of a script function, the same operations keep them as they are. Recurrent layers
over packed sequences become torch's own operations, for a server knows none of Secateur's.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

import secateur.structure.packed  # noqa: F401  (registers the operation)
from secateur.exporters._fresh import sentence
from secateur.surgery.graph_model import GraphModel, Program

_INFIX = {
    operator.add: "+", operator.sub: "-", operator.mul: "*", operator.floordiv: "//",
    operator.truediv: "/", operator.mod: "%", operator.eq: "==", operator.ne: "!=",
    operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=",
}  # fmt: skip
_SIZE = torch.ops.aten.sym_size.int
_PACKED = torch.ops.secateur.packed_recurrence.default
_CHECKS = ("_assert", "sym_constrain")  # operations that answer nothing


class Unscriptable(Exception):
    """A graph holds something that is not written as source here."""


@contextmanager
def scripted_graphs(model: nn.Module) -> Iterator[tuple[bool, str]]:
    """Within it every pruned graph of a model that reads a size runs as a script function.

    Yields whether there is one: then what is traced calls it, and has to be inlined and saved
    before the block ends, for the function does not outlive it. Yields too why a graph that reads
    sizes stays as it is, "" where none does.
    """
    held: list[tuple[GraphModel, dict[bool, Program]]] = []
    why = ""
    try:
        for module in model.modules():
            if not isinstance(module, GraphModel):
                continue
            programs = module.programs
            mode = module.training if module.training in programs else not module.training
            if not any(node.target in (_SIZE, _PACKED) for node in programs[mode].graph.nodes):
                continue
            try:
                written = _scripted(programs[mode])
            except (Unscriptable, RuntimeError) as error:  # of which the compiler's errors are
                why = sentence(error)
                continue
            held.append((module, programs))
            module.programs = {**programs, mode: written}
        yield bool(held), why
    finally:
        for module, programs in held:
            module.programs = programs


def inline(traced: nn.Module) -> None:
    """Put the script functions that a traced module calls into its own code, for a file does not
    keep functions that belong to no module."""
    for module in traced.modules():
        own: Any = module._c
        if own._has_method("forward"):
            graph = own._get_method("forward").graph
            torch._C._jit_pass_inline(graph)
            torch._C._jit_pass_dce(graph)


def _scripted(program: Program) -> Program:
    """The same program over a script function."""
    written = _Written(program.graph)
    unit = torch.jit.CompilationUnit(written.source())

    def run(holder: nn.Module, *flat: Any) -> list[Any]:
        given = [flat[place] for place in written.inputs]
        tensors = [_attribute(holder, name) for name in written.attributes]
        found = iter(unit.pruned_graph(*given, *tensors))
        return [next(found) if is_node else value for is_node, value in written.answers]

    return replace(program, function=run)


def _attribute(holder: Any, name: str) -> Any:
    for part in name.split("."):
        holder = getattr(holder, part)
    return holder


class _Written:
    """The source of a graph's function ``pruned_graph``.

    inputs: places of the flat inputs that it takes. attributes: names of the tensors that it takes
    after them. answers: for every flat output whether the function gives it, and else its value.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self.inputs: list[int] = []
        self.attributes: list[str] = []
        self.answers: list[tuple[bool, Any]] = []
        self._names: dict[fx.Node, str] = {}
        self._tensors: list[str] = []
        self._given: list[str] = []
        self._lines: list[str] = []
        self._returned: list[str] = []
        place = 0
        for node in graph.nodes:
            self._names[node] = f"v{len(self._names)}"
            if node.op == "placeholder":
                if node.users:
                    self.inputs.append(place)
                    self._given.append(self._names[node])
                place += 1
            elif node.op == "get_attr":
                self.attributes.append(str(node.target))
                self._tensors.append(self._names[node])
            elif node.op == "output":
                self._return(node.args[0])
            else:
                self._call(node)

    def source(self) -> str:
        """A function of all inputs and tensors that returns a tuple of tensors."""
        head = f"def pruned_graph({', '.join([*self._given, *self._tensors])}):"
        tail = f"return ({', '.join(self._returned)},)"
        return "\n    ".join([head, *self._lines, tail]) + "\n"

    def _return(self, answers: Any) -> None:
        for answer in answers if isinstance(answers, (tuple, list)) else [answers]:
            is_node = isinstance(answer, fx.Node)
            if is_node:
                if not _is_tensor(answer):
                    raise Unscriptable(f"{answer} is no tensor")
                self._returned.append(self._names[answer])
            self.answers.append((is_node, None if is_node else answer))
        if not self._returned:
            raise Unscriptable("nothing is returned")

    def _call(self, node: fx.Node) -> None:
        target, name = node.target, self._names[node]
        if target is _PACKED:
            self._lines += self._recurrence(name, node.args)
        elif isinstance(target, torch._ops.OpOverload):
            if not node.users and target._schema.name.rpartition("::")[2].startswith(_CHECKS):
                return
            self._lines.append(f"{name} = {self._operation(node, target)}")
        elif target is operator.getitem:
            self._lines.append(f"{name} = {self._text(node.args[0])}[{self._text(node.args[1])}]")
        elif target is operator.neg:
            self._lines.append(f"{name} = -{self._text(node.args[0])}")
        elif target in _INFIX:
            one, other = map(self._text, node.args)
            self._lines.append(f"{name} = {one} {_INFIX[target]} {other}")
        else:
            raise Unscriptable(f"{target} is no operation of TorchScript")

    def _recurrence(self, name: str, given: tuple[Any, ...]) -> list[str]:
        """What ``structure.packed`` runs, of torch's operations; given: its arguments."""
        x, lengths, kind, states, parameters, *rest = given
        lstm, ops = kind == "lstm", "torch.ops.aten"
        steps, hidden = self._text(x), self._text(list(states) if lstm else states[0])
        last = [f"{name}_h", f"{name}_c"] if lstm else [f"{name}_h"]
        settings = ", ".join(map(self._text, (list(parameters), *rest)))
        return [
            f"{name}_d, {name}_s = {ops}._pack_padded_sequence({steps}, "
            f"{self._text(lengths)}.cpu(), False)",
            f"{name}_a, {', '.join(last)} = {ops}.{kind}({name}_d, {name}_s, {hidden}, {settings})",
            f"{name}_p, {name}_n = {ops}._pad_packed_sequence({name}_a, {name}_s, False, 0.0, "
            f"{ops}.size({steps}, 0))",
            f"{name} = [{', '.join([f'{name}_p', *last])}]",
        ]

    def _operation(self, node: fx.Node, target: Any) -> str:
        space, _, name = target._schema.name.partition("::")
        if target is _SIZE:
            space, name = "aten", "size"
        kinds = {argument.name: argument.type for argument in target._schema.arguments}
        texts = [
            self._text(value, kind) for value, kind in zip(node.args, kinds.values(), strict=False)
        ]
        texts += [f"{key}={self._text(value, kinds[key])}" for key, value in node.kwargs.items()]
        return f"torch.ops.{space}.{name}({', '.join(texts)})"

    def _text(self, value: Any, kind: Any = None) -> str:
        """A value as source; kind: the type of the argument in the operation's schema."""
        wanted = "" if kind is None else kind.annotation_str.replace("SymInt", "int")
        if wanted.startswith("Optional["):
            wanted = wanted.removeprefix("Optional[").removesuffix("]")
        if isinstance(value, fx.Node):
            return self._names[value]
        if isinstance(value, (list, tuple)):
            inner = f"[{', '.join(self._text(one) for one in value)}]"
            return f"torch.jit.annotate({wanted}, {inner})" if wanted else inner
        if isinstance(value, torch.device):
            return f"torch.device({str(value)!r})"
        if isinstance(value, float):
            return repr(value) if value - value == 0 else f"float({str(value)!r})"
        if isinstance(value, int) and not isinstance(value, bool) and wanted == "float":
            return repr(float(value))
        plain = (bool, int, str, type(None), torch.dtype, torch.layout, torch.memory_format)
        if isinstance(value, plain):
            return repr(value)
        raise Unscriptable(f"{value!r} is no constant of TorchScript")


def _is_tensor(node: fx.Node) -> bool:
    """Whether a node of a flat graph gives one tensor, and no size or number computed of sizes."""
    if node.op != "call_function" or node.target is operator.getitem:
        return True
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    kinds: Sequence[Any] = target._schema.returns
    return len(kinds) == 1 and str(kinds[0].type) == "Tensor"

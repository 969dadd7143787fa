"""Prove a module surgery: its own capture must be the graph that graph surgery writes.

Two equal graphs over equal tensors compute the same on every input, so nothing needs to run.
Where the graphs differ in form, both are run in float64 on the example inputs.
"""

from __future__ import annotations

import copy
import traceback
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from secateur.errors import CaptureError, SurgeryError
from secateur.structure.capture import capture, source_line, user_line
from secateur.structure.inputs import ExampleInputs, repeated
from secateur.structure.structure import Structure
from secateur.surgery.graph_model import Program, flat_specs
from secateur.surgery.reference import InDouble, double
from secateur.surgery.rewriting import Rewritten

aten = torch.ops.aten
_SKIPPED = (aten._assert_tensor_metadata.default,)


def prove(
    model: nn.Module,
    structure: Structure,
    rewritten: Rewritten,
    folded: tuple[fx.Node, ...],
    example_inputs: ExampleInputs,
) -> None:
    """Errors: SurgeryError naming the line that held a size."""
    try:
        captured = capture(model, example_inputs)
    except CaptureError as error:
        line = user_line("".join(_trace(error)))
        raise SurgeryError(
            f"forward does not run on the sliced model{f' at {line}' if line else ''}: "
            f"{_first_line(error.__cause__)}"
        ) from error
    exempt = {rewritten.nodes[node] for node in folded}
    difference = first_difference(captured.module.graph, rewritten.graph, structure, exempt)
    if difference is None:
        return
    if not runs_equal(model, structure, rewritten, captured.arguments, exempt):
        raise SurgeryError(difference)


def first_difference(
    ours: fx.Graph, theirs: fx.Graph, structure: Structure, exempt: set[fx.Node]
) -> str | None:
    """The first place where two graphs differ, in words, or None.

    exempt: attention nodes of ``theirs`` whose scale is folded into weights in ``ours``.
    """
    numbers: dict[fx.Node, int] = {}
    left = _significant(ours)
    right = _significant(theirs)
    for number, (a, b) in enumerate(zip(left, right, strict=False)):
        numbers[a] = numbers[b] = number
        if a.target != b.target or a.op != b.op:
            return f"{_where(b)}: the sliced model calls {a.target} where {b.target} is right"
        first = _spelled(a, numbers, structure, False)
        second = _spelled(b, numbers, structure, b in exempt)
        if first != second:
            return f"{_where(b)}: the code holds a size: {first[1]} where {second[1]} is right"
    if len(left) != len(right):
        return "the sliced model runs another number of operations"
    return None


def runs_equal(
    model: nn.Module,
    structure: Structure,
    rewritten: Rewritten,
    arguments: Any,
    exempt: set[fx.Node],
) -> bool:
    """Run both in float64 on the arguments and compare all outputs to 1e-9 of their size."""
    holder = copy.deepcopy(model).double().eval()
    graph = rewritten.graph
    _lend_constants(holder, structure, rewritten)
    scales = {node: dict(node.kwargs) for node in exempt}
    for node in exempt:  # the model under test has the scale in its weights
        node.kwargs = {k: v for k, v in node.kwargs.items() if k != "scale"}
    try:
        program = Program.of(_copied(graph), *flat_specs(structure.captured.module))
        args, kwargs = double(repeated(arguments, 2))
        with torch.no_grad(), InDouble():
            expected = pytree.tree_leaves(program.run(holder, args, kwargs))
            seen = pytree.tree_leaves(holder(*args, **kwargs))
    finally:
        for node, saved in scales.items():
            node.kwargs = saved
    pairs = [(a, b) for a, b in zip(seen, expected, strict=True) if isinstance(a, torch.Tensor)]
    return all(
        a.shape == b.shape
        and torch.allclose(a, b, rtol=0, atol=1e-9 * float(b.abs().max() + 1e-30))
        for a, b in pairs
    )


def _lend_constants(holder: nn.Module, structure: Structure, rewritten: Rewritten) -> None:
    """Give the copy under test the constants that the rewritten graph reads by name."""
    for node in rewritten.graph.nodes:
        name = str(node.target)
        if node.op != "get_attr" or name in structure.shapes or name in structure.aliases:
            continue
        value = rewritten.constants.get(name)
        owner, _, leaf = name.rpartition(".")
        if value is None:
            value = double(getattr(structure.captured.module.get_submodule(owner), leaf))
        holder.get_submodule(owner).register_buffer(leaf, value, persistent=False)


def _copied(graph: fx.Graph) -> fx.Graph:
    result = fx.Graph()
    nodes: dict[fx.Node, Any] = {}
    result.output(result.graph_copy(graph, nodes))
    return result


def _significant(graph: fx.Graph) -> list[fx.Node]:
    return [
        node
        for node in graph.nodes
        if node.op in ("placeholder", "call_function", "output") and node.target not in _SKIPPED
    ]


def _spelled(
    node: fx.Node, numbers: dict[fx.Node, int], structure: Structure, scaled: bool
) -> tuple[str, str]:
    """A node's call, and its literals alone, as text."""
    literals: list[str] = []

    def name(n: fx.Node) -> Any:
        if n.op == "get_attr":
            target = str(n.target)
            return f"<{structure.aliases.get(target, target)}>"
        return f"<{numbers.get(n, '?')}>"

    args = fx.map_arg(node.args, name)
    kwargs = dict(fx.map_arg(node.kwargs, name))
    if scaled:
        kwargs.pop("scale", None)
    for leaf in pytree.tree_leaves((list(args), kwargs)):
        if not (isinstance(leaf, str) and leaf.startswith("<")):
            literals.append(str(leaf))
    return f"{args}{sorted(kwargs.items())}", ", ".join(literals)


def _where(node: fx.Node) -> str:
    return source_line(node) or str(node.target)


def _trace(error: BaseException) -> list[str]:
    return traceback.format_exception(error.__cause__ or error)


def _first_line(error: BaseException | None) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:200]

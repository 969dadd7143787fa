"""Prove a module surgery: its own capture must be the graph that graph surgery writes.

Two equal graphs over equal tensors compute the same on every input, so nothing needs to run.
Where the graphs differ in form, both are run in float64 on the example inputs.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from secateur.errors import CaptureError, SurgeryError
from secateur.structure.caches import known_caches
from secateur.structure.capture import Captured, source_line, user_line
from secateur.structure.inputs import ExampleInputs, repeated
from secateur.structure.parts import capture_part, part_of
from secateur.structure.structure import Structure
from secateur.surgery.graph_model import Program, flat_specs
from secateur.surgery.reference import InDouble, double, same_draws, widened
from secateur.surgery.rewriting import Rewritten
from secateur.surgery.scaling import multiply_rows

aten = torch.ops.aten
_SKIPPED = (aten._assert_tensor_metadata.default,)


@dataclass(frozen=True, eq=False)
class Comparison:
    """The graph of a sliced model beside the one that graph surgery writes.

    difference: the first place where they differ, in words, or None.
    rescaled:   nodes of the dense graph whose first operand the sliced model multiplies by
                another number than is right, with what is missing: right / present.
    """

    captured: Captured
    difference: str | None
    rescaled: Mapping[fx.Node, float]


def compare(
    model: nn.Module,
    structure: Structure,
    rewritten: Rewritten,
    folded: Collection[fx.Node],
    example_inputs: ExampleInputs,
) -> Comparison:
    """Capture a sliced model again.

    folded: attention nodes of the dense graph whose scale the weights hold already.
    Errors: SurgeryError naming the line where forward does not run.
    """
    try:
        inputs = structure.captured.arguments if structure.part else example_inputs
        captured = capture_part(model, structure.part, inputs)
    except CaptureError as error:
        line = user_line("".join(_trace(error)))
        raise SurgeryError(
            f"forward does not run on the sliced model{f' at {line}' if line else ''}: "
            f"{_first_line(error.__cause__)}"
        ) from error
    dense = {new: old for old, new in rewritten.nodes.items()}
    numbers: dict[fx.Node, int] = {}
    rescaled: dict[fx.Node, float] = {}
    left = _significant(captured.module.graph)
    right = _significant(rewritten.graph)
    spell_ours = partial(_spelled, structure, numbers, partial(_lifted, captured, {}))
    spell_theirs = partial(
        _spelled, structure, numbers, partial(_lifted, structure.captured, rewritten.constants)
    )
    for number, (a, b) in enumerate(zip(left, right, strict=False)):
        numbers[a] = numbers[b] = number
        if a.target != b.target or a.op != b.op:
            words = f"{_where(b)}: the sliced model calls {a.target} where {b.target} is right"
            return Comparison(captured, words, rescaled)
        scaled = dense.get(b) in folded
        first, second = spell_ours(a, False), spell_theirs(b, scaled)
        if first == second:
            continue
        factor = _missing_factor(a, b)
        if factor is None or spell_ours(a, True)[0] != spell_theirs(b, True)[0]:
            words = f"{_where(b)}: the code holds a size: {first[1]} where {second[1]} is right"
            return Comparison(captured, words, rescaled)
        rescaled[dense[b]] = factor
    words = None if len(left) == len(right) else (
        "the sliced model runs another number of operations"
    )  # fmt: skip
    return Comparison(captured, words, rescaled)


def _missing_factor(ours: fx.Node, right: fx.Node) -> float | None:
    """What a product with a number lacks; None for any other operation."""
    a, b = _scale_of(ours), _scale_of(right)
    if a is None or b is None or not a or not b:
        return None
    return a / b if _operation(ours) is aten.div else b / a


def _scale_of(node: fx.Node) -> float | None:
    if _operation(node) in (aten.mul, aten.div):
        value = node.args[1] if len(node.args) == 2 else None
    elif _operation(node) is aten.scaled_dot_product_attention:
        value = node.kwargs.get("scale")
    else:
        return None
    return float(value) if isinstance(value, (int, float)) else None


def _operation(node: fx.Node) -> Any:
    return getattr(node.target, "overloadpacket", node.target)


def runs_equal(
    model: nn.Module,
    structure: Structure,
    rewritten: Rewritten,
    arguments: Any,
    scales: Mapping[str, Sequence[float]],
) -> bool:
    """Run both in float64 on the arguments and compare all outputs to 1e-9 of their size.

    Errors: SurgeryError where the model does not run.

    scales: what rows of the model's tensors are to be multiplied by before it is right.
    """
    holder = widened(model)
    tensors = dict(holder.named_parameters())
    _lend_constants(holder, structure, rewritten)
    program = Program.of(_copied(rewritten.graph), *flat_specs(structure.captured.module))
    args, kwargs = double(repeated(arguments, 2))
    with torch.no_grad(), InDouble(), known_caches():
        with same_draws():
            expected = pytree.tree_leaves(program.run(holder, args, kwargs))
        for name, factors in scales.items():
            multiply_rows(tensors[name], factors)
        try:
            with same_draws():
                seen = pytree.tree_leaves(part_of(holder, structure.part)(*args, **kwargs))
        except Exception as error:  # the user's own code may raise anything
            line = user_line("".join(traceback.format_exception(error)))
            raise SurgeryError(
                f"forward does not run on the sliced model{f' at {line}' if line else ''}: "
                f"{_first_line(error)}"
            ) from error
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
            value = double(_lifted(structure.captured, {}, name))
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
    structure: Structure,
    numbers: Mapping[fx.Node, int],
    lifted: Callable[[str], torch.Tensor],
    node: fx.Node,
    scaled: bool,
) -> tuple[str, str]:
    """A node's call, and its literals alone, as text; without its scale where it is ``scaled``."""
    literals: list[str] = []

    def name(n: fx.Node) -> Any:
        if n.op != "get_attr":
            return f"<{numbers.get(n, '?')}>"
        target = str(n.target)
        target = structure.aliases.get(target, target)
        # A tensor that forward made itself has no name to go by: what it holds is compared.
        return f"<{target if target in structure.shapes else _content(lifted(str(n.target)))}>"

    args = fx.map_arg(node.args, name)
    kwargs = dict(fx.map_arg(node.kwargs, name))
    if scaled:
        kwargs.pop("scale", None)
        if _operation(node) in (aten.mul, aten.div):
            args = args[:1]
    for leaf in pytree.tree_leaves((list(args), kwargs)):
        if not (isinstance(leaf, str) and leaf.startswith("<")):
            literals.append(str(leaf))
    return f"{args}{sorted(kwargs.items())}", ", ".join(literals)


def _lifted(captured: Captured, constants: Mapping[str, torch.Tensor], name: str) -> Any:
    if name in constants:
        return constants[name]
    owner, _, leaf = name.rpartition(".")
    return getattr(captured.module.get_submodule(owner), leaf)


def _content(tensor: Any) -> str:
    if isinstance(tensor, fx.GraphModule):  # of an operation that calls it, which froze all of it
        return tensor.code
    if tensor.numel() == 1:
        return f"{tensor.dtype} {tensor.item()}"
    wide = tensor.detach().cpu().double() if tensor.is_floating_point() else tensor.cpu()
    values = wide.contiguous().numpy().tobytes()
    return f"{tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(values).hexdigest()[:16]}"


def _where(node: fx.Node) -> str:
    return source_line(node) or str(node.target)


def _trace(error: BaseException) -> list[str]:
    return traceback.format_exception(error.__cause__ or error)


def _first_line(error: BaseException | None) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:200]

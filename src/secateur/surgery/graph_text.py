"""A graph as JSON: no code, no pickle, only operations of torch by name."""

from __future__ import annotations

import keyword
import math
import operator
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from secateur.errors import InputError, SurgeryError
from secateur.structure.caches import known_caches
from secateur.surgery.graph_model import Program

_PYTHON = {
    "getitem": operator.getitem, "mul": operator.mul, "add": operator.add, "sub": operator.sub,
    "floordiv": operator.floordiv, "truediv": operator.truediv, "mod": operator.mod,
    "neg": operator.neg, "pow": operator.pow, "eq": operator.eq, "ge": operator.ge,
    "le": operator.le, "gt": operator.gt, "lt": operator.lt, "ne": operator.ne,
    "sym_max": torch.sym_max, "sym_min": torch.sym_min, "sym_int": torch.sym_int,
    "sym_float": torch.sym_float, "sym_not": torch.sym_not,
    "set_grad_enabled": torch._C._set_grad_enabled,
    "enter_autocast": torch.amp.autocast_mode._enter_autocast,
    "exit_autocast": torch.amp.autocast_mode._exit_autocast,
}  # fmt: skip
_NAMES = {function: name for name, function in _PYTHON.items()}
_TYPED = {"dtype": torch.dtype, "layout": torch.layout, "memory_format": torch.memory_format}


def program_to_json(program: Program) -> dict[str, Any]:
    """Nodes and pytree specs. Errors: SurgeryError for what has no text form."""
    nodes = [
        {
            "name": node.name,
            "op": node.op,
            "target": _target_to_text(node),
            "args": _to_json(node.args),
            "kwargs": {name: _to_json(value) for name, value in node.kwargs.items()},
        }
        for node in program.graph.nodes
    ]
    specs = []
    for spec in (program.in_spec, program.out_spec):
        try:
            with known_caches():
                specs.append(pytree.treespec_dumps(spec))
        except NotImplementedError as error:
            raise SurgeryError(
                f"the model returns a container that has no text form ({error})"
            ) from error
    return {"nodes": nodes, "in_spec": specs[0], "out_spec": specs[1]}


class UnknownContainer(InputError):
    """A type of inputs or outputs that a library makes known when it is imported."""


def program_from_json(document: dict[str, Any]) -> Program:
    """The compiled program. Errors: InputError for an unknown operation or a broken document."""
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    try:
        for entry in document["nodes"]:
            args = _from_json(entry["args"], nodes)
            target = _target_from_text(entry["op"], entry["target"])
            names = (_identifier(name) for name in entry["kwargs"])
            kwargs = {k: _from_json(entry["kwargs"][k], nodes) for k in names}
            nodes[entry["name"]] = graph.create_node(
                entry["op"], target, tuple(args), kwargs, entry["name"]
            )
        specs = [_spec(document[key]) for key in ("in_spec", "out_spec")]
    except NotImplementedError as error:
        raise UnknownContainer(
            f"the model takes or returns a container that is not known here ({error}); import the "
            "library that it comes from, or give load the function that builds the dense model"
        ) from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the graph file is broken: {error}; save the model again") from error
    return Program.of(graph, specs[0], specs[1])


def _spec(text: str) -> pytree.TreeSpec:
    """Errors: NotImplementedError for a container that no imported module has made known."""
    with known_caches():
        return pytree.treespec_loads(text)


def _target_to_text(node: fx.Node) -> str:
    if node.op != "call_function":
        return str(node.target)
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target)
    if node.target in _NAMES:
        return f"python.{_NAMES[node.target]}"
    raise SurgeryError(f"the graph calls {node.target}, which has no text form")


def _target_from_text(op: str, text: str) -> Any:
    if op not in ("placeholder", "get_attr", "call_function", "output"):
        raise InputError(f"the graph file has a node of kind '{op}'; save the model again")
    if op != "call_function":
        return _path(text) if op == "get_attr" else _identifier(text)
    if text.startswith("python."):
        return _PYTHON[text.removeprefix("python.")]
    namespace, name, overload = text.split(".")
    packet = getattr(getattr(torch.ops, namespace), name, None)
    known = isinstance(packet, torch._ops.OpOverloadPacket) and overload in packet.overloads()
    operation = getattr(packet, overload) if known else None
    if not isinstance(operation, torch._ops.OpOverload):
        raise InputError(
            f"the graph file calls '{text}', which this torch does not have; "
            "use the torch that saved it"
        )
    # operations of TorchScript alone, such as aten::save, have no kernel
    reaches_files = any(  # the path of einsum is an order of its operands
        a.name in ("filename", "path") and str(a.type) == "str" for a in operation._schema.arguments
    )
    if reaches_files or not torch._C._dispatch_has_kernel(operation.name()):
        raise InputError(f"the graph file calls '{text}', which no model needs; save it again")
    return operation


def _identifier(name: str) -> str:
    """A name that enters the text of a program: it must be a name and nothing else."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise InputError(
            f"the graph file has {name[:80]!r} where a name is expected; save the model again"
        )
    return name


def _path(name: str) -> str:
    """The path of a tensor, which enters the text of a program between quotation marks."""
    if not name.isprintable() or set(name) & set("\"'\\{}"):
        raise InputError(
            f"the graph file has {name[:80]!r} where the name of a tensor is expected; "
            "save the model again"
        )
    return name


def _to_json(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    for kind, cls in _TYPED.items():
        if isinstance(value, cls):
            return {kind: str(value).removeprefix("torch.")}
    raise SurgeryError(f"the graph holds a {type(value).__name__}, which has no text form")


def _from_json(value: Any, nodes: dict[str, fx.Node]) -> Any:
    if isinstance(value, list):
        return [_from_json(item, nodes) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, text),) = value.items()
    if kind == "node":
        return nodes[text]
    if kind == "float":
        return float(text)
    if kind == "device":
        return torch.device(text)
    result = getattr(torch, text)
    if not isinstance(result, _TYPED[kind]):
        raise InputError(f"the graph file names torch.{text} as a {kind}; save the model again")
    return result

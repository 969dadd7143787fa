"""Names for the inputs and outputs of an exported file, the same for dense and pruned models."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from secateur.surgery.graph_model import GraphModel


def input_names(model: nn.Module, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> list[str]:
    """One name per tensor leaf, in the caller's order: forward's argument, then the path in it."""
    args, kwargs = arguments
    roots = [*zip(_positional(model, len(args)), args, strict=True), *kwargs.items()]
    names = []
    for root, tree in roots:
        for path, leaf in pytree.tree_leaves_with_path(tree):
            if isinstance(leaf, torch.Tensor):
                names.append(_spelled([root, *map(_piece, path)]))
    return _distinct(names, set())


def output_names(paths: Sequence[Any], taken: Sequence[str]) -> list[str]:
    """One name per output: its key, ``output`` for a single one, ``output_1`` in a tuple."""
    names = []
    for path in paths:
        pieces = [_piece(key) for key in path]
        if not pieces or pieces[0].isdigit():
            pieces = ["output", *pieces]
        names.append(_spelled(pieces))
    return _distinct(names, set(taken))


def give_signature(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Name the arguments of a copy whose forward takes ``*args`` or ``**kwargs``.

    torch.export cannot mark dimensions inside ``**kwargs`` as dynamic, and would call positional
    inputs ``args_0``. A pruned graph remembers the names of the dense model's arguments.
    """
    kinds = {p.kind for p in inspect.signature(model.forward).parameters.values()}
    if not kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        return
    forward = model.forward

    def call(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    names = _distinct(_positional(model, len(args)), set(kwargs))
    parameter = inspect.Parameter
    named = [parameter(name, parameter.POSITIONAL_ONLY) for name in names]
    named += [parameter(name, parameter.KEYWORD_ONLY) for name in kwargs]
    vars(call)["__signature__"] = inspect.Signature(named)
    model.forward = call


def _positional(model: nn.Module, count: int) -> list[str]:
    if isinstance(model, GraphModel) and "forward" not in vars(model):
        return _captured_positional(model, count)
    names: list[str] = []
    for name, parameter in inspect.signature(model.forward).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{name}_{i}" for i in range(count - len(names))]
        elif parameter.kind is not parameter.VAR_KEYWORD:
            names.append(name)
    return names[:count]


def _captured_positional(model: GraphModel, count: int) -> list[str]:
    """The dense model's names: placeholders are called after argument and path, in flat order."""
    program = model.programs.get(False) or model.programs[True]
    leaves = [node.name for node in program.graph.nodes if node.op == "placeholder"]
    names, position = [], 0
    for spec in program.in_spec.children()[0].children()[:count]:
        tree = pytree.tree_unflatten([0] * spec.num_leaves, spec)
        path, _ = pytree.tree_leaves_with_path(tree)[0]
        inner = "".join(f"_{_piece(key)}" for key in path)
        names.append(leaves[position].removesuffix(inner))
        position += spec.num_leaves
    return names


def _piece(key: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _spelled(pieces: list[str]) -> str:
    return re.sub(r"\W+", "_", "_".join(pieces))


def _distinct(names: list[str], taken: set[str]) -> list[str]:
    result = []
    for name in names:
        unique, number = name, 1
        while unique in taken:
            unique, number = f"{name}_{number}", number + 1
        taken.add(unique)
        result.append(unique)
    return result

"""A part of a model: the inputs that reach it, and its graph under the names of the whole.

Where a whole model cannot be captured, or shall not change elsewhere, one of its modules can be
pruned inside. What that module takes and returns stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import torch
from torch import fx, nn

from secateur.errors import InputError
from secateur.structure.capture import Captured, capture
from secateur.structure.inputs import ExampleInputs, as_arguments


def part_of(model: nn.Module, part: str) -> nn.Module:
    """The module at a dotted path, the model itself for "". Errors: InputError."""
    if not part:
        return model
    try:
        return model.get_submodule(part)
    except AttributeError as error:
        known = [name for name, _ in model.named_modules() if name]
        near = get_close_matches(part, known, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise InputError(f"the model has no part '{part}'{hint}") from error


def belongs(name: str, part: str) -> bool:
    """Whether a tensor's or module's name lies in the part."""
    return not part or name == part or name.startswith(f"{part}.")


def arguments_of(
    model: nn.Module, example_inputs: ExampleInputs, part: str
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the part is called with, first, when the model runs in eval mode.

    What comes after the part need not run. Errors: InputError where the model does not reach the
    part, or calls modules of it from outside.
    """
    args, kwargs = as_arguments(example_inputs)
    if not part:
        return args, kwargs
    target = part_of(model, part)
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    depth = 0

    def enter(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        nonlocal depth
        depth += 1
        seen.append((given, named))

    def leave(module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        nonlocal depth
        depth -= 1

    def refuse_outside(path: str) -> Any:
        def check(module: nn.Module, given: tuple[Any, ...]) -> None:
            if not depth:
                raise InputError(
                    f"'{part}.{path}' is called from outside '{part}', so that it cannot be pruned "
                    "as a part; name a part that holds the caller"
                )

        return check

    modes = {module: module.training for module in model.modules()}
    with ExitStack() as stack:
        stack.callback(_restore_modes, modes)
        model.eval()
        hooks = [target.register_forward_pre_hook(enter, prepend=True, with_kwargs=True)]
        hooks.append(target.register_forward_hook(leave, always_call=True))
        for path, module in target.named_modules():
            if path:
                hooks.append(module.register_forward_pre_hook(refuse_outside(path)))
        for hook in hooks:
            stack.callback(hook.remove)
        try:
            with torch.no_grad():
                model(*args, **kwargs)
        except InputError:
            raise
        except Exception as error:  # the user's own code may raise anything
            if not seen or depth:
                raise InputError(
                    f"the model does not run up to the end of '{part}' on the example inputs "
                    f"({type(error).__name__}: {str(error).strip().splitlines()[0]}); check them"
                ) from error
    if not seen:
        raise InputError(f"the model does not call its part '{part}' on these example inputs")
    return seen[0]


def capture_part(
    model: nn.Module, part: str, inputs: ExampleInputs, training: bool = False
) -> Captured:
    """Capture a part, the whole model for "", in eval or train mode.

    inputs: the part's own. Errors: as ``capture``.
    """
    captured = capture(part_of(model, part), inputs, training)
    return within(captured, part) if part else captured


def within(captured: Captured, part: str) -> Captured:
    """The same graph, whose tensors and modules have the names that they have in the model."""
    graph = captured.module.graph
    held: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            owner, _, leaf = str(node.target).rpartition(".")
            name = f"{part}.{node.target}"
            held[name] = getattr(captured.module.get_submodule(owner), leaf)
            node.target = name
        stack = node.meta.get("nn_module_stack")
        if stack:
            node.meta["nn_module_stack"] = {
                key: (_outer_path(str(path), part), kind) for key, (path, kind) in stack.items()
            }
    return replace(captured, module=fx.GraphModule(held, graph))


def without_prefix(tensors: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Tensors of the part by the names that they have in it."""
    return {
        name.removeprefix(f"{part}.") if part else name: tensor
        for name, tensor in tensors.items()
        if belongs(name, part)
    }


def _restore_modes(modes: Mapping[nn.Module, bool]) -> None:
    for module, mode in modes.items():
        module.training = mode


def _outer_path(path: str, part: str) -> str:
    inner = path.removeprefix("L['self'].").removeprefix("L['self']")
    return f"{part}.{inner}" if inner else part

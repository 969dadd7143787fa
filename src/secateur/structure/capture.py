"""Capture a model as a graph of ATen operations, before any decomposition.

``torch.export`` non-strict, batch dynamic where the model allows it. A batch of 1 is repeated
to 2 first: captured at 1, a dynamic batch would be specialised. The captured module shares its
tensors with the caller's model; whoever changes them clones first.
"""

from __future__ import annotations

import inspect
import io
import logging
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch._functorch import config
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import Dim, export
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.modules import transformer
from torch.utils import _pytree as pytree

from secateur.errors import CaptureError, InputError
from secateur.structure.caches import known_caches, leaves_in_caches
from secateur.structure.composites import take_apart
from secateur.structure.copying import forget_stored
from secateur.structure.inputs import ExampleInputs, as_arguments, batch_size, is_batched, repeated
from secateur.structure.modes import inline_modes
from secateur.structure.numbers import only_counts, reads
from secateur.structure.packed import padded_packs

_TORCH = f"{Path(torch.__file__).parent}/"
_HERE = f"{Path(__file__).parent.parent}/"


@dataclass(frozen=True, eq=False)
class Captured:
    """A captured model.

    module:    the graph module; parameters and buffers keep the names they have in the model.
    arguments: the positional and keyword arguments it was captured with (batch at least 2).
    batch:     size of the batch at capture; ``dynamic`` says whether others are accepted.
    caches:    for every flat output, whether it lies in a key-value cache.
    numbers:   lines of code that read a whole number from the inputs (a length); in the graph
               it is that of the example, which it asserts.
    """

    module: fx.GraphModule
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    batch: int
    dynamic: bool
    training: bool
    caches: tuple[bool, ...] = ()
    numbers: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was settled to capture it, in words."""
        words = "a number that forward reads from its inputs is that of the example"
        return tuple(f"{words}: {line}" for line in self.numbers)


def capture(model: nn.Module, example_inputs: ExampleInputs, training: bool = False) -> Captured:
    """Capture ``model`` in eval or train mode; its modes are restored afterwards.

    Errors: CaptureError naming the line of the model's code that export could not follow;
    InputError for TorchScript, and inside ``torch.inference_mode()``.
    """
    if torch.is_inference_mode_enabled():
        raise InputError(
            "torch.inference_mode() is on, which makes no trainable tensors; prune outside of it"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("this is a TorchScript module; give the model that it was made from")
    args, kwargs = as_arguments(example_inputs)
    modes = {module: module.training for module in model.modules()}
    forget_stored(model)
    model.train(training)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        arguments = repeated((args, kwargs), 2)
        with known_caches(), _masks_as_given(), padded_packs():
            try:
                return _export(model, arguments, training)
            except CaptureError:
                if batch_size((args, kwargs)) != 1:
                    raise
                return _export(model, (args, kwargs), training)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module, mode in modes.items():
            module.training = mode


def _export(model: nn.Module, arguments: Any, training: bool) -> Captured:
    args, kwargs = arguments
    buffers = {name: value.detach().clone() for name, value in model.named_buffers()}
    held = {module: dict(module._buffers) for module in model.modules()}
    failure: Exception | None = None
    for dynamic, known in ((True, False), (False, False), (True, True)):
        if known and not isinstance(failure, GuardOnDataDependentSymNode):
            break
        shapes = pytree.tree_map(
            lambda leaf: {0: Dim.AUTO} if is_batched(leaf) else None, (args, kwargs)
        )
        try:
            with _quiet(), config.patch(fake_tensor_propagate_real_tensors=known):
                program = export(
                    model,
                    args,
                    kwargs,
                    strict=False,
                    dynamic_shapes=_by_argument(model, shapes) if dynamic else None,
                )
                module = program.module(check_guards=False)
        # Whatever export raises (dozens of types, from user code too) becomes one sentence.
        except Exception as error:
            failure = error if known else failure or error
            continue
        finally:
            _forget_fakes(held)
            _restore(model, buffers)
        assert isinstance(module, fx.GraphModule)
        if known and not only_counts(module.graph):
            break
        inline_modes(module)
        take_apart(module)
        _forget_replaced(module)
        free = any(_is_symbolic(node) for node in module.graph.nodes if node.op == "placeholder")
        size = next((t.shape[0] for t in pytree.tree_leaves(arguments) if is_batched(t)), 1)
        caches = leaves_in_caches(program.call_spec.out_spec)  # type: ignore[arg-type]
        numbers = tuple(dict.fromkeys(map(source_line, reads(module.graph)))) if known else ()
        return Captured(module, arguments, size, free, training, caches, numbers)
    assert failure is not None
    raise CaptureError(_explain(failure)) from failure


@contextmanager
def _masks_as_given() -> Iterator[None]:
    """torch's transformers compare a mask's values with a causal one's, for speed alone.

    export cannot branch on values; without the hint the mask itself is what attention is given.
    """
    looked = transformer._detect_is_causal_mask

    def hint(mask: Any, is_causal: bool | None = None, size: int | None = None) -> bool:
        return is_causal is True

    transformer._detect_is_causal_mask = hint
    try:
        yield
    finally:
        transformer._detect_is_causal_mask = looked


@contextmanager
def _quiet() -> Iterator[None]:
    """export logs and warns about what it then raises, or what is nobody's business."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # it prints graphs there
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _forget_fakes(held: dict[nn.Module, dict[str, torch.Tensor | None]]) -> None:
    """Put back what forward registered anew under export: a tensor without values.

    held: the buffers of every module as they were.
    """
    for module, before in held.items():
        for name, value in list(module._buffers.items()):
            if isinstance(value, FakeTensor):
                if name in before:
                    module._buffers[name] = before[name]
                else:
                    delattr(module, name)


def _restore(model: nn.Module, buffers: dict[str, torch.Tensor]) -> None:
    """Undo what a forward pass in train mode wrote into buffers."""
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            saved = buffers.get(name)
            if saved is not None and saved.shape == buffer.shape:
                buffer.copy_(saved)


def _by_argument(model: nn.Module, shapes: Any) -> Any:
    """export wants the dynamic shapes by the names of forward's arguments."""
    args, kwargs = shapes
    return dict(inspect.signature(model.forward).bind(*args, **kwargs).arguments)


def _is_symbolic(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and any(
        isinstance(size, torch.SymInt) and not size.node.expr.is_number for size in value.shape
    )


def _forget_replaced(module: fx.GraphModule) -> None:
    """Drop the copy of a result into a buffer of another shape, or into one that was not there.

    That is how export says that forward registers a buffer anew (a table that grows with the
    inputs). The graph computes it in every call, and nothing could be copied. Where there was no
    buffer before, export takes an input for it; its own copies have the origin of their source.
    """
    for node in list(module.graph.nodes):
        if node.target is not torch.ops.aten.copy_.default or node.users:
            continue
        target, source = node.args[:2]
        if target.op == "placeholder" and node.meta.get("torch_fn") == source.meta.get("torch_fn"):
            module.graph.erase_node(node)
            continue
        into, new = (operand.meta.get("val") for operand in node.args[:2])
        if node.args[0].op != "get_attr" or into is None or new is None:
            continue
        sizes = zip(reversed(new.shape), reversed(into.shape), strict=False)
        other = any(isinstance(a, torch.SymInt) or a not in (1, b) for a, b in sizes)
        if new.dim() > into.dim() or other:
            module.graph.erase_node(node)
    module.recompile()


def source_line(node: fx.Node) -> str:
    """The line of the user's code that made a node, ``file.py:12: code``; "" when unknown."""
    return user_line(str(node.meta.get("stack_trace") or ""))


def module_path(node: fx.Node) -> str | None:
    """Dotted path of the module whose forward made the node."""
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return None
    path = list(stack.values())[-1][0]
    path = path.removeprefix("L['self'].").removeprefix("L['self']")
    return None if path.startswith("_empty_nn_module_stack") else path


def user_line(trace: str) -> str:
    """The innermost frame of a formatted traceback outside torch and this package."""
    lines = trace.splitlines()
    found = ""
    for position, line in enumerate(lines):
        text = line.strip()
        if not text.startswith('File "'):
            continue
        path, _, rest = text[6:].partition('"')
        if path.startswith((_TORCH, _HERE, "<")):
            continue
        number = rest.split("line ")[1].split(",")[0] if "line " in rest else "?"
        code = lines[position + 1].strip() if position + 1 < len(lines) else ""
        found = f"{Path(path).name}:{number}: {code}"
    return found


def _explain(error: Exception) -> str:
    trace = "".join(traceback.format_exception(error))
    line = user_line(trace) or user_line(str(error))
    first = next((text.strip() for text in str(error).splitlines() if text.strip()), "")
    what = f"{type(error).__name__}: {first}"[:300]
    where = f" at {line}" if line else ""
    return (
        f"torch.export cannot capture this model{where} ({what}). "
        "Try: move data-dependent branches (if, for over values) out of forward, or prune the "
        "part of the model that has none, or check that the example inputs are right"
    )

"""A model captured for export, and inputs to check the result with."""

from __future__ import annotations

import inspect
import traceback
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from secateur.errors import CaptureError, InputError
from secateur.exporters._arrays import as_array
from secateur.exporters._names import give_signature
from secateur.structure.caches import known_caches
from secateur.structure.capture import user_line
from secateur.structure.copying import copied
from secateur.structure.inputs import (
    ExampleInputs,
    as_arguments,
    batch_size,
    is_batched,
    map_tensors,
    repeated,
)
from secateur.structure.packed import padded_packs

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
CHECKED_BATCHES = (1, 3)  # one is what most models are deployed with; three was not captured


@dataclass(frozen=True, eq=False)
class Exportable:
    """A copy of the model on the CPU, in eval mode, and its captured program.

    arguments: the example inputs on the CPU, at the user's batch size.
    symbols:   per tensor leaf of the inputs, the symbol of its free first dimension, or None.
    why_fixed: why the batch size is not free, "" where it is.
    """

    model: nn.Module
    program: ExportedProgram
    arguments: Arguments
    symbols: tuple[str | None, ...]
    why_fixed: str

    @property
    def dynamic(self) -> bool:
        """Whether the batch size is free."""
        return any(self.symbols)

    def notes(self, dynamic_batch: bool) -> list[str]:
        """What to say where a free batch size was asked for and is not to be had."""
        if dynamic_batch and not self.dynamic:
            return [f"the batch size is fixed, because {self.why_fixed}"]
        return []

    def checks(self) -> list[tuple[int, Arguments]]:
        """Batch sizes and inputs: the example inputs, then drawn ones at other sizes."""
        leaves = [t for t in pytree.tree_leaves(self.arguments) if isinstance(t, torch.Tensor)]
        batched = [t for t, symbol in zip(leaves, self.symbols, strict=True) if symbol]
        if not batched:
            given = next((t.shape[0] for t in leaves if is_batched(t)), 1)
            return [(given, self.arguments), (given, self.drawn(given))]
        drawn = [(size, self.drawn(size)) for size in CHECKED_BATCHES]
        return [(batched[0].shape[0], self.arguments), *drawn]

    def drawn(self, size: int) -> Arguments:
        """Inputs like the example inputs, of batch ``size`` where the batch is free.

        Floats are drawn with the mean and deviation of the example within its range; a constant
        example gives standard normal values. Whole numbers, masks and infinities are rows of
        the example, the same ones in their order, for only those are known to be valid.
        """
        generator = torch.Generator().manual_seed(0)
        symbols = iter(self.symbols)
        places = torch.rand(size, generator=generator).sort().values

        def draw(example: torch.Tensor) -> torch.Tensor:
            free = next(symbols) is not None
            if not is_batched(example) or not example.numel():
                return example
            rows = size if free else example.shape[0]
            if not example.is_floating_point() or not bool(torch.isfinite(example).all()):
                if not free:
                    return example
                return example[(places * len(example)).long()]
            noise = torch.randn((rows, *example.shape[1:]), generator=generator)
            low, high = example.min(), example.max()
            if low == high:
                return noise.to(example.dtype)
            values = example.double().mean() + example.double().std() * noise
            return values.to(example.dtype).clamp(low, high)

        return map_tensors(draw, self.arguments)

    def outputs(self, arguments: Arguments) -> list[np.ndarray]:
        """Flat output tensors of the PyTorch model."""
        return [as_array(leaf) for _, leaf in self.named_outputs(arguments)]

    def named_outputs(self, arguments: Arguments) -> list[tuple[Any, torch.Tensor]]:
        """Output tensors of the PyTorch model with their paths in what forward returns."""
        args, kwargs = arguments
        with torch.no_grad(), known_caches():
            leaves = pytree.tree_leaves_with_path(self.model(*args, **kwargs))
        return [(path, leaf) for path, leaf in leaves if isinstance(leaf, torch.Tensor)]


def captured(model: nn.Module, example_inputs: ExampleInputs, dynamic_batch: bool) -> Exportable:
    """Capture a copy of the model, with a free batch size where asked for and possible.

    Errors: CaptureError where torch.export cannot follow; InputError where the model does not run.
    """
    own = copied(model).cpu().eval()
    args, kwargs = map_tensors(lambda t: t.detach().cpu(), as_arguments(example_inputs))
    arguments = args, kwargs
    give_signature(own, args, kwargs)
    try:
        with torch.no_grad():
            own(*args, **kwargs)
    except Exception as error:  # the user's own code may raise anything
        raise InputError(
            f"the model does not run on the example inputs ({type(error).__name__}: "
            f"{_first_line(error)}); check their number, shapes and types"
        ) from error
    why_fixed = "a fixed batch was asked for"
    if dynamic_batch:
        try:
            program = _export(own, repeated(arguments, 2), dynamic=True)
            symbols = _symbols(program)
            free = Exportable(own, program, arguments, symbols, "")
            why_fixed = "forward holds the batch size of the example inputs as a number"
            if any(symbols):
                why_fixed = _runs_at_other_batches(free)
            if not why_fixed:
                return free
        except CaptureError as error:
            why_fixed = str(error)
        if batch_size(arguments) is None:
            why_fixed += "; the inputs do not share a first dimension"
    program = _export(own, arguments, dynamic=False)
    return Exportable(own, program, arguments, _symbols(program), why_fixed)


def _runs_at_other_batches(exportable: Exportable) -> str:
    """ "" where it does; or else why not: export may defer a fixed size to an assertion.

    Where the batch of one input is free and that of another is a number, the program is asked too.
    """
    leaves = [x for x in pytree.tree_leaves(exportable.arguments) if isinstance(x, torch.Tensor)]
    batched = [s for x, s in zip(leaves, exportable.symbols, strict=True) if is_batched(x)]
    for size in CHECKED_BATCHES:
        try:
            drawn = exportable.drawn(size)
            exportable.outputs(drawn)
            if None in batched:
                exportable.program.module()(*drawn[0], **drawn[1])
        except Exception as error:  # the user's own code may raise anything
            return f"forward does not run at batch {size} ({_first_line(error)})"
    return ""


def _export(model: nn.Module, arguments: Arguments, dynamic: bool) -> ExportedProgram:
    args, kwargs = arguments
    shapes = None
    if dynamic:
        tree = pytree.tree_map(lambda x: {0: Dim.AUTO} if is_batched(x) else None, arguments)
        shapes = dict(inspect.signature(model.forward).bind(*tree[0], **tree[1]).arguments)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), torch.no_grad(), known_caches(), padded_packs():
            warnings.simplefilter("ignore")
            return torch.export.export(model, args, kwargs, strict=False, dynamic_shapes=shapes)
    except Exception as error:  # export raises dozens of types, from user code too
        line = user_line("".join(traceback.format_exception(error)))
        raise CaptureError(
            f"torch.export cannot capture this model{f' at {line}' if line else ''} "
            f"({type(error).__name__}: {_first_line(error)})"
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _symbols(program: ExportedProgram) -> tuple[str | None, ...]:
    """Per tensor input the symbol of its first dimension, or None where it is a number."""
    inputs = {name for name in program.graph_signature.user_inputs if isinstance(name, str)}
    found = []
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in inputs:
            value = node.meta.get("val")
            if isinstance(value, torch.Tensor):
                size = value.shape[0] if value.dim() else 0
                free = isinstance(size, torch.SymInt) and not size.node.expr.is_number
                found.append(str(size) if free else None)
    return tuple(found)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:300]

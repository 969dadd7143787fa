"""TorchScript, ``.pt``: PyTorch's older format, for servers that still load it."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from secateur.errors import ExportError
from secateur.exporters import exporter, writes
from secateur.exporters._arrays import as_array
from secateur.exporters._files import staged, target
from secateur.exporters._fresh import sentence
from secateur.exporters._parity import UNCHECKED, parity
from secateur.exporters._program import Arguments, Exportable, captured
from secateur.exporters._result import ExportResult
from secateur.exporters._scripting import inline, scripted_graphs
from secateur.structure.inputs import ExampleInputs


@exporter("torchscript")
@writes(".pt")
def export_torchscript(
    model: nn.Module,
    example_inputs: ExampleInputs,
    path: str | os.PathLike[str],
    dynamic_batch: bool = True,
    check: bool = True,
) -> ExportResult:
    """TorchScript by tracing, read back and compared with the model.

    Inputs are given in the order of the example inputs, keywords after the others. The file
    returns a tensor where the model returns one, and else a flat tuple of tensors.
    dynamic_batch: False keeps the size of the example inputs. check: False compares nothing, and
    takes it that a free batch stays free. Where tracing held the batch of the example as a number,
    the file is written for that batch alone, and a note says so.
    Errors: CaptureError where torch.export cannot follow (it draws the inputs to check with);
    ExportError where the file computes something else or cannot be written; InputError otherwise.
    """
    start = time.perf_counter()
    path = target(path, ".pt")
    exportable = captured(model, example_inputs, dynamic_batch)
    notes = exportable.notes(dynamic_batch)
    with staged(path) as partial, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that TorchScript is old, and that it was traced
        try:
            run = _written(exportable, partial)
            checks = parity(exportable, run) if check else UNCHECKED
        except ExportError as error:
            if not exportable.dynamic:
                raise
            exportable = captured(model, example_inputs, False)
            checks = parity(exportable, _written(exportable, partial))
            notes.append(f"the batch size is fixed, because TorchScript holds it: {error}")
        size = partial.stat().st_size
    return ExportResult(
        "torchscript",
        path,
        size,
        checks.max_abs_diff,
        checks.relative,
        exportable.dynamic,
        checks.checked,
        time.perf_counter() - start,
        tuple(notes),
    )


def _written(exportable: Exportable, path: Path) -> Callable[[Arguments], list[np.ndarray]]:
    """Trace into a file; returns what runs the file. Errors: ExportError."""
    try:
        with scripted_graphs(exportable.model) as (scripted, why):
            if why and exportable.dynamic:  # a wrong size may crash the process, and is not tried
                raise ExportError(f"a size that the graph reads would be held ({why})")
            traced: Any = torch.jit.trace(
                _Flat(exportable), tuple(_flat(exportable.arguments)), check_trace=False
            )
            if scripted:
                inline(traced)
            torch.jit.save(traced, path)
        again = torch.jit.load(path)
    except ExportError:
        raise
    except Exception as error:  # the tracer raises types of its own, and the user's
        raise ExportError(f"TorchScript cannot trace this model: {sentence(error)}") from error

    def run(arguments: Arguments) -> list[np.ndarray]:
        found = again(*_flat(arguments))
        return [as_array(leaf) for leaf in pytree.tree_leaves(found)]

    return run


def _flat(arguments: Arguments) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor)]


class _Flat(nn.Module):
    """Takes flat tensors. Returns the tensor where the model returns one, else a tuple of all of
    them, flat: what else a model may return TorchScript does not hold."""

    def __init__(self, exportable: Exportable) -> None:
        super().__init__()
        self.model = exportable.model
        self._leaves, self._spec = pytree.tree_flatten(exportable.arguments)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        given = iter(tensors)
        leaves = [next(given) if isinstance(x, torch.Tensor) else x for x in self._leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        found = self.model(*args, **kwargs)
        if isinstance(found, torch.Tensor):
            return found
        leaves = pytree.tree_leaves(found)
        return tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))

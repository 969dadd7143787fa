"""PyTorch's own exported program, ``.pt2``."""

from __future__ import annotations

import os
import time
import warnings

import torch
from torch import nn
from torch.utils import _pytree as pytree

from secateur.exporters import exporter, writes
from secateur.exporters._files import staged, target
from secateur.exporters._program import captured
from secateur.exporters._result import TOLERANCE, ExportError, ExportResult, difference
from secateur.structure.inputs import ExampleInputs


@exporter("torch-export")
@writes(".pt2")
def export_program(
    model: nn.Module,
    example_inputs: ExampleInputs,
    path: str | os.PathLike[str],
    dynamic_batch: bool = True,
) -> ExportResult:
    """PyTorch's exported program (.pt2), read back and compared with the model.

    dynamic_batch: False keeps the size of the example inputs.
    Errors: CaptureError where torch.export cannot follow; ExportError where the file computes
    something else; InputError for the path or inputs that do not fit.
    """
    start = time.perf_counter()
    path = target(path, ".pt2")
    exportable = captured(model, example_inputs, dynamic_batch)
    notes = []
    if dynamic_batch and not exportable.dynamic:
        notes.append(f"the batch size is fixed, because {exportable.why_fixed}")
    absolute = relative = 0.0
    checked = []
    with staged(path) as partial, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.export.save(exportable.program, partial)
        size = partial.stat().st_size
        again = torch.export.load(partial).module()
        for batch, (args, kwargs) in exportable.checks():
            leaves = pytree.tree_leaves(again(*args, **kwargs))
            seen = [leaf.numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]
            found = difference(exportable.outputs((args, kwargs)), seen)
            if found.relative > TOLERANCE:
                raise ExportError(
                    f"at batch {batch} the exported program differs from the PyTorch model by "
                    f"{found.absolute:.1e} ({found.relative:.1e} of the output; {TOLERANCE:.0e} "
                    "is allowed); it was not kept"
                )
            absolute, relative = max(absolute, found.absolute), max(relative, found.relative)
            checked.append(batch)
    return ExportResult(
        "torch-export",
        path,
        size,
        absolute,
        relative,
        exportable.dynamic,
        tuple(dict.fromkeys(checked)),
        time.perf_counter() - start,
        tuple(notes),
    )

"""PyTorch's own exported program, ``.pt2``."""

from __future__ import annotations

import os
import time
import warnings

import numpy as np
import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from secateur.errors import ExportError
from secateur.exporters import exporter, refuses, writes
from secateur.exporters._arrays import as_array
from secateur.exporters._files import staged, target
from secateur.exporters._packed import has_packed
from secateur.exporters._parity import UNCHECKED, parity
from secateur.exporters._program import Arguments, captured
from secateur.exporters._result import ExportResult
from secateur.structure.caches import known_caches
from secateur.structure.inputs import ExampleInputs


def refuse_packed(model: nn.Module, graph: fx.Graph) -> None:
    """Errors: ExportError for a graph with recurrent layers over packed sequences."""
    if has_packed(graph):
        raise ExportError(
            "a .pt2 file cannot hold recurrent layers over packed sequences, for which PyTorch "
            "has no operation of known size; the exporters 'onnx', 'openvino' and 'torchscript' can"
        )


@exporter("torch-export")
@writes(".pt2")
@refuses(refuse_packed)
def export_program(
    model: nn.Module,
    example_inputs: ExampleInputs,
    path: str | os.PathLike[str],
    dynamic_batch: bool = True,
    check: bool = True,
) -> ExportResult:
    """PyTorch's exported program (.pt2), read back and compared with the model.

    dynamic_batch: False keeps the size of the example inputs. check: False compares nothing, for
    a file that is only timed.
    Errors: CaptureError where torch.export cannot follow; ExportError where the file computes
    something else; InputError for the path or inputs that do not fit.
    """
    start = time.perf_counter()
    path = target(path, ".pt2")
    exportable = captured(model, example_inputs, dynamic_batch)
    refuse_packed(model, exportable.program.graph)
    notes = exportable.notes(dynamic_batch)
    with staged(path) as partial, warnings.catch_warnings(), torch.no_grad(), known_caches():
        warnings.simplefilter("ignore")
        torch.export.save(exportable.program, partial)
        size = partial.stat().st_size
        again = torch.export.load(partial).module()

        def run(arguments: Arguments) -> list[np.ndarray]:
            leaves = pytree.tree_leaves(again(*arguments[0], **arguments[1]))
            return [as_array(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)]

        checks = parity(exportable, run) if check else UNCHECKED
    return ExportResult(
        "torch-export",
        path,
        size,
        checks.max_abs_diff,
        checks.relative,
        exportable.dynamic,
        checks.checked,
        time.perf_counter() - start,
        tuple(notes),
    )

"""OpenVINO's own format: .xml beside .bin, checked in OpenVINO in float32."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from torch import fx, nn

from secateur.errors import ExportError
from secateur.exporters import exporter, refuses, writes
from secateur.exporters._files import staged, target
from secateur.exporters._parity import UNCHECKED, parity
from secateur.exporters._program import captured
from secateur.exporters._result import ExportResult
from secateur.exporters.onnx import (
    refuse_half_precision,
    refuse_model,
    require_packages,
    write_onnx,
)
from secateur.runtimes.openvino import last_line, load_openvino, openvino_package
from secateur.structure.inputs import ExampleInputs


def refuse_for_openvino(model: nn.Module, graph: fx.Graph) -> None:
    """Errors: InputError for a package that is not installed, and for weights in half precision."""
    openvino_package()
    refuse_model(model, graph)


@exporter("openvino")
@writes(".xml")
@refuses(refuse_for_openvino)
def export_openvino(
    model: nn.Module,
    example_inputs: ExampleInputs,
    path: str | os.PathLike[str],
    dynamic_batch: bool = True,
    check: bool = True,
) -> ExportResult:
    """OpenVINO IR (.xml, with its weights in .bin), checked in OpenVINO against the PyTorch model.

    It goes by way of ONNX, so input and output names are those of the ONNX file. Weights keep
    float32; the precision of the computation is chosen when the file is loaded. dynamic_batch:
    False keeps the size of the example inputs. check: False compares nothing.
    Errors: CaptureError where torch.export cannot follow; ExportError where the file computes
    something else, or OpenVINO cannot convert it; InputError otherwise.
    """
    start = time.perf_counter()
    path = target(path, ".xml")
    openvino = openvino_package()
    require_packages()
    refuse_half_precision(model)
    exportable = captured(model, example_inputs, dynamic_batch)
    refuse_model(model, exportable.program.graph)
    notes = exportable.notes(dynamic_batch)
    with tempfile.TemporaryDirectory() as place:
        between = Path(place) / "model.onnx"
        write_onnx(exportable, between, notes)
        try:
            converted = openvino.convert_model(between)
        except Exception as error:  # its errors share no base but this
            raise ExportError(f"OpenVINO cannot convert this model: {last_line(error)}") from error
        with staged(path) as partial:
            openvino.save_model(converted, partial, compress_to_fp16=False)
            size = sum(file.stat().st_size for file in partial.parent.iterdir())
            checks = parity(exportable, load_openvino(partial)) if check else UNCHECKED
    return ExportResult(
        "openvino",
        path,
        size,
        checks.max_abs_diff,
        checks.relative,
        exportable.dynamic,
        checks.checked,
        time.perf_counter() - start,
        tuple(notes),
    )

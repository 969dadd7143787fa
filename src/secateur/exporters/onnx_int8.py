"""ONNX with 8-bit weights and activations, for ONNX Runtime and for OpenVINO."""

from __future__ import annotations

import logging
import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from secateur.errors import ExportError
from secateur.exporters import exporter, refuses, writes
from secateur.exporters._files import staged, target
from secateur.exporters._parity import parity
from secateur.exporters._program import captured
from secateur.exporters._result import ExportResult, difference
from secateur.exporters.onnx import (
    refuse_half_precision,
    refuse_model,
    require_packages,
    write_onnx,
)
from secateur.runtimes.onnxruntime import session
from secateur.structure.inputs import ExampleInputs

OVERFLOW = 0.01  # of the largest output: two roundings of the same 8-bit sums stay far below
SEVEN = (
    "weights take 7 bits of their 8: this processor adds 8-bit products in 16 bits, which overflow"
)


@exporter("onnx-int8")
@writes(".int8.onnx")
@refuses(refuse_model)
def export_int8(
    model: nn.Module,
    example_inputs: ExampleInputs,
    path: str | os.PathLike[str],
    dynamic_batch: bool = True,
    calibration: Sequence[Any] | None = None,
) -> ExportResult:
    """ONNX quantised after training: 8-bit weights per channel, 8-bit activations.

    Ranges of activations are the extremes on ``calibration`` inputs (batches like the example
    inputs; None draws values like the example's, with a warning, for they say little of real
    data). Matrix products and convolutions compute in 8 bits where the processor can; ONNX
    Runtime and OpenVINO load the same file. The answers differ from the PyTorch model's by what 8
    bits cannot hold: the difference is reported, and is no error.
    Errors: as the exporter ``onnx``; ExportError where answers are not finite.
    """
    start = time.perf_counter()
    path = target(path, ".onnx")
    require_packages()
    refuse_half_precision(model)
    exportable = captured(model, example_inputs, dynamic_batch)
    refuse_model(model, exportable.program.graph)
    notes = exportable.notes(dynamic_batch)
    if calibration is None:
        notes.append(
            "8-bit ranges come from drawn inputs; give calibration data for the ranges of yours"
        )
        calibration = [arguments for _, arguments in exportable.checks()]
    with tempfile.TemporaryDirectory() as place, staged(path) as partial:
        float_path, folded = Path(place) / "model.onnx", Path(place) / "folded.onnx"
        write_onnx(exportable, float_path, notes)
        whole = session(float_path)
        checks = parity(exportable, whole)
        feeds = [whole.feed(inputs) for inputs in calibration]
        _quantise(float_path, folded, partial, feeds, False)
        if _overflows(partial, feeds[0]):
            _quantise(float_path, folded, partial, feeds, True)
            notes.append(SEVEN)
        size = partial.stat().st_size
        run = session(partial)
        found = difference(exportable.outputs(exportable.arguments), run(exportable.arguments))
    if not np.isfinite(found.absolute):
        raise ExportError("the 8-bit model gives values that are not finite; it was not kept")
    return ExportResult(
        "onnx-int8",
        path,
        size,
        found.absolute,
        found.relative,
        exportable.dynamic,
        checks.checked[:1],
        time.perf_counter() - start,
        tuple(notes),
    )


def _overflows(path: Path, feed: dict[str, np.ndarray]) -> bool:
    """Whether this processor answers otherwise than the file says.

    Without the instructions for it, pairs of 8-bit products are added in 16 bits, which can
    overflow. Run step by step, as the file has it, products are those of floats.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    told = onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    ).run(None, feed)
    expected = [np.asarray(value) for value in told]
    return difference(expected, session(path).run(feed)).relative > OVERFLOW


def _quantise(
    path: Path, folded: Path, result: Path, feeds: Sequence[dict[str, np.ndarray]], seven: bool
) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter(feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it advises on its root logger
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quant_pre_process(path, folded, skip_symbolic_shape=True)
            quantize_static(
                folded, result, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, reduce_range=seven,
            )  # fmt: skip
    except Exception as error:  # the package raises types of several others
        sentence = str(error).strip().partition("\n")[0]
        raise ExportError(f"ONNX Runtime cannot quantise this model: {sentence}") from error
    finally:
        logging.getLogger().setLevel(level)

"""ONNX, checked in ONNX Runtime against the PyTorch model."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from secateur.errors import ExportError, InputError
from secateur.exporters import exporter, refuses, writes
from secateur.exporters._files import staged, target
from secateur.exporters._names import input_names, output_names
from secateur.exporters._operators import operators_read_once
from secateur.exporters._packed import has_packed, translations
from secateur.exporters._parity import UNCHECKED, parity
from secateur.exporters._program import Exportable, captured
from secateur.exporters._result import ExportResult
from secateur.runtimes.onnxruntime import session
from secateur.structure.inputs import ExampleInputs

# A protobuf message ends at 2 GiB; beyond, the weights lie in a second file, `<name>.data`.
LARGEST_SINGLE_FILE = 2**31 - 2**24

_TALKATIVE = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


def refuse_model(model: nn.Module, graph: fx.Graph) -> None:
    """Errors: InputError for a package that is not installed, weights in half precision, and
    outputs in bfloat16."""
    require_packages()
    refuse_half_precision(model)
    for answer in pytree.tree_leaves(graph.output_node().args):
        value = answer.meta.get("val") if isinstance(answer, fx.Node) else None
        if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16:
            raise InputError(
                f"the output '{answer}' is torch.bfloat16, which the runtimes that check the file "
                "cannot give to Python; return it as .float()"
            )


@exporter("onnx")
@writes(".onnx")
@refuses(refuse_model)
def export_onnx(
    model: nn.Module,
    example_inputs: ExampleInputs,
    path: str | os.PathLike[str],
    opset: int | None = None,
    dynamic_batch: bool = True,
    check: bool = True,
) -> ExportResult:
    """ONNX in one file with its weights, checked in ONNX Runtime against the PyTorch model.

    opset: None for the exporter's default. dynamic_batch: False keeps the size of the example.
    check: False compares nothing, for a file that is only timed.
    Outputs are compared on the example inputs and on drawn inputs at batch 1 and 3 (at the one
    possible size where the batch is fixed). Equal tensors are stored once, so a net with many
    zero weights gives a smaller file. Above 2 GB the weights lie in ``<path>.data``.
    Errors: CaptureError where torch.export cannot follow; ExportError where the file computes
    something else (1e-4 relative, float32 sums in another order); InputError otherwise.
    """
    start = time.perf_counter()
    path = target(path, ".onnx")
    require_packages()
    refuse_half_precision(model)  # before it is captured, which takes long
    exportable = captured(model, example_inputs, dynamic_batch)
    refuse_model(model, exportable.program.graph)
    notes = exportable.notes(dynamic_batch)
    with staged(path) as partial:
        write_onnx(exportable, partial, notes, opset)
        size = sum(file.stat().st_size for file in partial.parent.iterdir())
        checks = parity(exportable, session(partial)) if check else UNCHECKED
    seconds = time.perf_counter() - start
    return ExportResult(
        "onnx",
        path,
        size,
        checks.max_abs_diff,
        checks.relative,
        exportable.dynamic,
        checks.checked,
        seconds,
        tuple(notes),
    )


def write_onnx(
    exportable: Exportable, path: Path, notes: list[str], opset: int | None = None
) -> None:
    """Convert a captured model into a file; what should be known of it is added to ``notes``.

    Errors: ExportError where PyTorch cannot convert it.
    """
    program = _convert(exportable, opset, notes)
    _write(program, path)
    written = program.model.opset_imports[""]
    if opset is not None and written != opset:
        notes.append(f"the file has opset {written}; it cannot be converted to {opset}")


def _convert(exportable: Exportable, opset: int | None, notes: list[str]) -> Any:
    """The ONNX program; where an operation has no translation, of its smaller operations."""
    try:
        return _converted(exportable, exportable.program, opset)
    # The converter raises types of three packages and of its own operators.
    except Exception as error:
        failure = error
    try:
        with _quiet(), torch.no_grad():
            core = exportable.program.run_decompositions()
        program = _converted(exportable, core, opset)
    except Exception:
        raise ExportError(
            f"PyTorch cannot convert this model to ONNX ({_deepest(failure)}); another opset may "
            "know the operation, and the exporter 'torch-export' needs no conversion"
        ) from failure
    notes.append(
        f"operations were written out in smaller ones, because of one that ONNX export does not "
        f"know ({_deepest(failure)}); this can be slower"
    )
    return program


def _converted(exportable: Exportable, program: ExportedProgram, opset: int | None) -> Any:
    names = input_names(exportable.model, exportable.arguments)
    outputs = exportable.named_outputs(exportable.arguments)
    packed = has_packed(program.graph)
    with _quiet(), torch.no_grad(), nullcontext() if packed else operators_read_once():
        return torch.onnx.export(
            program,
            input_names=names,
            output_names=output_names([key for key, _ in outputs], names),
            opset_version=opset,
            dynamic_shapes=_axis_names(exportable.symbols) if exportable.dynamic else None,
            custom_translation_table=translations() if packed else None,
            dynamo=True,
            verbose=False,
        )


def _write(program: Any, path: Path) -> None:
    """One file, unless its weights are more than a file can hold."""
    values = program.model.graph.initializers.values()
    weights = sum(value.const_value.nbytes for value in values if value.const_value is not None)
    with _quiet():
        program.save(path, external_data=weights > LARGEST_SINGLE_FILE)


def _deepest(error: BaseException) -> str:
    """The sentence of the first cause; those above it are advice for PyTorch's developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"


def _axis_names(symbols: tuple[str | None, ...]) -> tuple[dict[int, str] | None, ...]:
    """``batch`` for the first free symbol, ``batch_1`` for the next one that is independent."""
    names: dict[str, str] = {}
    for symbol in filter(None, symbols):
        names.setdefault(symbol, f"batch_{len(names)}" if names else "batch")
    return tuple({0: names[symbol]} if symbol else None for symbol in symbols)


def require_packages() -> None:
    """Errors: InputError for a package that is not installed."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            import_module(name)
        except ImportError as error:
            raise InputError(
                f"ONNX export needs {name} ({error}); pip install secateur[onnx]"
            ) from error


def refuse_half_precision(model: nn.Module) -> None:
    """Errors: InputError for weights that the CPU runtime cannot check."""
    for name, tensor in model.state_dict().items():
        if tensor.dtype in (torch.float16, torch.bfloat16):
            raise InputError(
                f"'{name}' is {tensor.dtype}; the CPU runtime that checks the file works in "
                "float32: export model.float(), and convert the file afterwards"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """The converter warns and logs about its own internals; levels are restored."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

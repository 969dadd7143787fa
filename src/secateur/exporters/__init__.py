"""Exporters: one file each, every result checked against the PyTorch model before it is kept.

    exporters.export("onnx", model, example_inputs, "model.onnx")

An exporter is a function (model, example_inputs, path) -> ExportResult; further settings are
keywords of its own, with defaults. It changes nothing about the model.

``@writes`` below ``@exporter`` says which suffix its files have, ``@refuses`` what of a model can
be seen before any work to be no export.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from secateur.registry import Registry

if TYPE_CHECKING:
    from torch import fx, nn

    from secateur.exporters._result import ExportResult
    from secateur.structure.inputs import ExampleInputs


Function = TypeVar("Function", bound=Callable[..., Any])


class Exporter(Protocol):
    """Writes ``path`` whole or not at all. Errors: ExportError, InputError, CaptureError."""

    def __call__(
        self, model: nn.Module, example_inputs: ExampleInputs, path: str | os.PathLike[str]
    ) -> ExportResult: ...


SUFFIXES: dict[str, str] = {}
REFUSALS: dict[str, Callable[[nn.Module, fx.Graph], None]] = {}


def writes(suffix: str) -> Callable[[Function], Function]:
    """Say which suffix the files of an exporter have; stands below ``@exporter``."""

    def note(function: Function) -> Function:
        SUFFIXES[function.__module__] = suffix
        return function

    return note


def suffix_of(name: str) -> str:
    """The suffix of an exporter's files, with its dot; "" for a folder."""
    return SUFFIXES.get(EXPORTERS.get(name).__module__, "")


def refuses(check: Callable[[nn.Module, fx.Graph], None]) -> Callable[[Function], Function]:
    """Say how an exporter refuses a model before any work; stands below ``@exporter``.

    check: takes a model and its captured graph, and raises InputError or ExportError where a
    package is missing, or the model is one that this exporter cannot write.
    """

    def note(function: Function) -> Function:
        REFUSALS[function.__module__] = check
        return function

    return note


def refuse(name: str, model: nn.Module, graph: fx.Graph) -> None:
    """Return where nothing is known that would keep a model from being exported.

    Errors: InputError for an unknown name or a missing package; InputError or ExportError for a
    model that the exporter of that name cannot write.
    """
    check = REFUSALS.get(EXPORTERS.get(name).__module__)
    if check is not None:
        check(model, graph)


EXPORTERS: Registry[Exporter] = Registry("exporter", package="secateur.exporters")
exporter = EXPORTERS.register


def export(
    name: str,
    model: nn.Module,
    example_inputs: ExampleInputs,
    path: str | os.PathLike[str],
    calibration: Sequence[Any] | None = None,
) -> ExportResult:
    """Export with the exporter of that name, and write what ``serve-check`` compares beside it.

    calibration: inputs like the example inputs, for exporters that learn ranges from them.
    Errors: InputError for an unknown name; the exporter's own.
    """
    write: Any = EXPORTERS.get(name)
    if "calibration" in inspect.signature(write).parameters:
        found: ExportResult = write(model, example_inputs, path, calibration=calibration)
    else:
        found = write(model, example_inputs, path)
    from secateur.exporters._check_file import write_beside  # with torch, which a name needs not

    write_beside(found, model, example_inputs)
    return found

"""Exporters: one file each, every result checked against the PyTorch model before it is kept.

    exporters.export("onnx", model, example_inputs, "model.onnx")

An exporter is a function (model, example_inputs, path) -> ExportResult; further settings are
keywords of its own, with defaults. It changes nothing about the model.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from secateur.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from secateur.exporters._result import ExportResult
    from secateur.structure.inputs import ExampleInputs


Function = TypeVar("Function", bound=Callable[..., Any])


class Exporter(Protocol):
    """Writes ``path`` whole or not at all. Errors: ExportError, InputError, CaptureError."""

    def __call__(
        self, model: nn.Module, example_inputs: ExampleInputs, path: str | os.PathLike[str]
    ) -> ExportResult: ...


SUFFIXES: dict[str, str] = {}


def writes(suffix: str) -> Callable[[Function], Function]:
    """Say which suffix the files of an exporter have; stands below ``@exporter``."""

    def note(function: Function) -> Function:
        SUFFIXES[function.__module__] = suffix
        return function

    return note


def suffix_of(name: str) -> str:
    """The suffix of an exporter's files, with its dot; "" for a folder."""
    return SUFFIXES.get(EXPORTERS.get(name).__module__, "")


EXPORTERS: Registry[Exporter] = Registry("exporter", package="secateur.exporters")
exporter = EXPORTERS.register


def export(
    name: str,
    model: nn.Module,
    example_inputs: ExampleInputs,
    path: str | os.PathLike[str],
) -> ExportResult:
    """Export with the exporter of that name. Errors: InputError for an unknown name; its own."""
    return EXPORTERS.get(name)(model, example_inputs, path)

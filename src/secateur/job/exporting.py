"""One export of a run's model, with the file that ``serve-check`` reads beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from secateur.config import Recipe
from secateur.errors import ExportError, InputError
from secateur.exporters import export, refuse
from secateur.job.calibrating import calibration
from secateur.protocols import Subject
from secateur.structure.structure import Structure
from secateur.training.loading import Batch

BATCHES = 8  # of calibration data for the ranges of 8-bit activations
RANGED = "onnx-int8"  # what takes ranges from calibration data


def check_exports(recipe: Recipe, model: nn.Module, structure: Structure) -> None:
    """Errors: InputError for exports that are known to fail, before anything is trained."""
    for name in recipe.export:
        try:
            refuse(name, model, structure.captured.module.graph)
        except (InputError, ExportError) as error:
            raise InputError(f"the export {name!r} cannot be made: {error}") from error


def exported(
    name: str, model: nn.Module, target: Path, recipe: Recipe, subject: Subject
) -> dict[str, Any]:
    """Export, and say what came of it in plain values; ``path`` is the file's name.

    8-bit exports take their ranges from the run's calibration samples. Errors: the exporter's.
    """
    samples = calibration(recipe, subject) if name == RANGED else None
    found = export(name, model, subject.example_inputs, target, ranging(samples))
    return {
        "name": name,
        "path": found.path.name,
        "bytes": found.size,
        "max_abs": found.max_abs_diff,
        "relative": found.relative,
        "seconds": found.seconds,
        "warnings": list(found.warnings),
    }


def ranging(samples: list[Batch] | None) -> list[Any] | None:
    """Inputs of calibration samples that ranges are taken from."""
    return None if samples is None else [batch for batch, _ in samples[:BATCHES]]

"""One export of a run's model, with the file that ``serve-check`` reads beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from secateur.config import Recipe
from secateur.exporters import EXPORTERS, export
from secateur.exporters._check_file import write_arrays, write_check
from secateur.exporters._serving import CHECKED
from secateur.job.calibrating import calibration
from secateur.protocols import Subject
from secateur.runtimes.onnxruntime import session

BATCHES = 8  # of calibration data for the ranges of 8-bit activations


def exported(
    name: str, model: nn.Module, target: Path, recipe: Recipe, subject: Subject
) -> dict[str, Any]:
    """Export, and say what came of it in plain values; ``path`` is the file's name.

    8-bit exports take their ranges from the run's calibration samples. Errors: the exporter's.
    """
    inputs = subject.example_inputs
    if name == "onnx-int8":
        samples = calibration(recipe, subject)
        given = None if samples is None else [batch for batch, _ in samples[:BATCHES]]
        write: Any = EXPORTERS.get(name)
        found = write(model, inputs, target, calibration=given)
    else:
        found = export(name, model, inputs, target)
    if name == "onnx-int8":  # 8 bits answer otherwise than the model: what was seen is expected
        run = session(found.path)
        feed = run.feed(inputs)
        write_arrays(found.path, list(feed.values()), run.run(feed))
    elif name in CHECKED:
        write_check(found.path, model, inputs)
    return {
        "name": name,
        "path": found.path.name,
        "bytes": found.size,
        "max_abs": found.max_abs_diff,
        "relative": found.relative,
        "seconds": found.seconds,
        "warnings": list(found.warnings),
    }

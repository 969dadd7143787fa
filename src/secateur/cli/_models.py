"""A model from a command's options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.errors import InputError

if TYPE_CHECKING:
    from secateur.protocols import Subject


def opened(model: str, shape: str | None, weights: Path | None, arguments: str | None) -> Subject:
    """The model of a spec, with inputs of the wanted shape or those it comes with.

    shape: ``1,3,224,224`` or ``1x3x224x224``. arguments: JSON. Errors: InputError.
    """
    try:
        given = json.loads(arguments) if arguments else {}
    except ValueError as error:
        raise InputError(f"--model-args is not JSON ({error}); write '{{\"depth\": 3}}'") from error
    if not isinstance(given, dict):
        raise InputError(
            f"--model-args wants a JSON object such as '{{\"depth\": 3}}', got {given}"
        )
    try:
        sizes = [int(size) for size in shape.replace("x", ",").split(",")] if shape else None
    except ValueError as error:
        raise InputError(f"--input wants a shape such as 1,3,224,224, got '{shape}'") from error
    if sizes is not None and min(sizes) < 1:
        raise InputError(f"--input wants sizes from 1 up, got '{shape}'")

    from secateur.job.subjects import classes_of, with_inputs
    from secateur.sources.models import load_model

    subject = load_model(model, given, weights, Path.cwd())
    if sizes is None and subject.example_inputs is None:
        raise InputError(f"{model} comes without example inputs; give --input 1,3,224,224")
    subject = with_inputs(subject, None, sizes)
    classes_of(subject.model, subject.example_inputs)  # refuses inputs that it does not run on
    return subject

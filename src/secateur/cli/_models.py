"""A model from a command's options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.errors import InputError

if TYPE_CHECKING:
    from secateur.protocols import Subject


def opened(
    model: str,
    shape: str | None,
    weights: Path | None,
    arguments: str | None,
    data: str | None = None,
) -> Subject:
    """The model of a spec, with inputs of the wanted shape, of the data, or those it comes with.

    model: may be a recipe as well, whose model, weights and data count where no option says more.
    shape: ``1,3,224,224`` or ``1x3x224x224``. arguments: JSON. data: a spec, for inputs that are no
    single tensor of floats. Errors: InputError.
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

    from secateur.job.subjects import classes_of, load_subject, with_inputs
    from secateur.sources.models import load_model

    if is_recipe(model):
        from secateur.config import load_document, read_recipe

        document = load_document(model)
        document.pop("compare", None)  # a section of compare-methods
        more: dict[str, Any] = {"input": sizes, "model_args": given or None, "data": data}
        more["weights"] = str(weights.resolve()) if weights is not None else None
        document |= {key: value for key, value in more.items() if value is not None}
        return load_subject(read_recipe(document, model))
    subject = load_model(model, given, weights, Path.cwd())
    if sizes is None and subject.example_inputs is None and data is None:
        raise InputError(
            f"{model} comes without example inputs; give --input 1,3,224,224, or --data with a "
            "data spec"
        )
    samples = None
    if data is not None:
        from secateur.sources.data import load_data

        samples = load_data(data, Path.cwd(), 0)
    subject = with_inputs(subject, samples, sizes)
    classes_of(
        subject.model, subject.example_inputs, sizes is not None
    )  # refuses inputs that it does not run on
    return subject


def is_recipe(model: str) -> bool:
    """Whether a recipe is named in the place of a model."""
    return model.endswith((".yaml", ".yml"))


def part_of(model: str) -> str:
    """The part that a recipe in the place of a model prunes, or none. Errors: InputError."""
    if not is_recipe(model):
        return ""
    from secateur.config import load_document

    return str(load_document(model).get("part") or "")

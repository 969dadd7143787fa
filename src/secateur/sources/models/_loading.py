"""From a model spec to a Subject: build, load weights, refuse what cannot be used."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from secateur.errors import InputError
from secateur.protocols import Subject
from secateur.sources.functions import FORMS, load_function
from secateur.sources.models import MODEL_SOURCES
from secateur.sources.weights import load_weights
from secateur.structure.copying import copied
from secateur.structure.inputs import as_arguments
from secateur.surgery.applying import refuse_nan


def load_model(
    spec: str, arguments: Mapping[str, Any], weights: str | Path | None, folder: Path
) -> Subject:
    """The model that ``spec`` names, with its weights.

    spec:      ``package.module:function``, ``file.py:function`` or ``SCHEME:NAME``. A function
               returns a module, or the pair (module, example_inputs).
    arguments: keywords of the function.
    weights:   a ``.safetensors`` or ``.pt`` file; relative paths are relative to ``folder``.
    folder:    the recipe's folder.
    Errors: InputError.
    """
    scheme, _, name = spec.partition(":")
    if scheme in MODEL_SOURCES.names():
        if not name:
            raise InputError(f"{spec!r} names no model; write '{scheme}:NAME'")
        model, example_inputs = MODEL_SOURCES.get(scheme)(name, arguments)
    else:
        forms = [*FORMS, *(f"{scheme}:NAME" for scheme in MODEL_SOURCES.names())]
        model, example_inputs = _from_function(spec, arguments, folder, forms)
    if weights is not None:
        load_weights(model, folder / Path(weights).expanduser())
    refuse_nan(model)
    # A copy, so that a function that draws its weights, or returns one module twice, gives back
    # what was loaded and not what has become of it.
    untouched = copied(model)
    return Subject(spec, model, lambda: copied(untouched), example_inputs)


def _from_function(
    spec: str, arguments: Mapping[str, Any], folder: Path, forms: list[str]
) -> tuple[nn.Module, Any]:
    function = load_function(spec, folder, forms)
    if isinstance(inspect.unwrap(function), nn.Module):
        raise InputError(
            f"{spec} is a model, not a function that builds one; "
            "write a function that returns it and name that"
        )
    result = function(**arguments)
    if isinstance(result, nn.Module):
        return result, None
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], nn.Module):
        as_arguments(result[1])  # refuses what cannot be an input
        return result
    raise InputError(
        f"{spec} returned {_described(result)}; expected a torch.nn.Module, or the pair "
        "(module, example_inputs)"
    )


def _described(result: object) -> str:
    if isinstance(result, tuple):
        return f"a tuple ({', '.join(type(item).__name__ for item in result)})"
    return "None" if result is None else f"a {type(result).__name__}"

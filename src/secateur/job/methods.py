"""Methods of a training, from the words of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from secateur.config import TrainingSection
from secateur.during import DURING
from secateur.errors import InputError
from secateur.registry import Registry, unknown
from secateur.regularisers import REGULARISERS
from secateur.sections.pruner import PrunerSection
from secateur.training.extensions import Method


def methods_of(section: TrainingSection | PrunerSection) -> list[Method]:
    """Regularisers in the recipe's order, then what prunes. Errors: InputError for bad settings."""
    found = [
        made(REGULARISERS, name, settings) for name, settings in section.regularise.items()
    ]  # fmt: skip
    if section.during is not None:
        settings = {key: value for key, value in section.during.items() if key != "method"}
        found.append(made(DURING, section.during["method"], settings))
    return found


def needs_structure(section: TrainingSection, methods: Sequence[Method]) -> bool:
    """Whether something works on units, or picks layers by what they do."""
    picks = section.during or section.before or section.ticket
    return bool(picks) or any("structure" in method.needs for method in methods)


def made(
    registry: Registry[Callable[..., Method]], name: str, settings: Mapping[str, Any]
) -> Method:
    """A method with settings of a recipe. Errors: InputError, one sentence for what is wrong."""
    kind: Any = registry.get(name)
    known = [field.name for field in fields(kind)]
    for key in settings:
        if key not in known:
            raise InputError(f"{name}: {unknown('setting', str(key), known)}")
    try:
        return TypeAdapter(kind).validate_python(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{name}: {where} is {first['input']!r}; {first['msg'][0].lower()}{first['msg'][1:]}"
        ) from error

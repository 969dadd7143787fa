"""From the document of a recipe to a finished run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from secateur.cli._talking import finish, talking
from secateur.errors import InputError


def read(recipe: str) -> dict[str, Any]:
    """The document of a recipe file, or of a model spec alone. Errors: InputError."""
    from secateur.config import load_document

    if recipe.endswith((".yaml", ".yml")) or (Path(recipe).is_file() and ":" not in recipe):
        return load_document(recipe)
    return {"model": recipe, "folder": str(Path.cwd())}


def start(document: dict[str, Any], source: str, as_json: bool) -> None:
    """Check and run it, talking on the way. Errors: InputError before any work."""
    from secateur.config import read_recipe
    from secateur.job.checking import aims, check_recipe

    checked = read_recipe(document, source)
    if not aims(checked):
        raise InputError("there is no target; give --target flops=0.5x, or 'target' in the recipe")
    check_recipe(checked)
    with talking(as_json) as talk:
        from secateur.job import story

        metrics = story.run(checked, talk, shlex.join(["secateur", *sys.argv[1:]]))
    finish(metrics, as_json, talk.run)


def refuse_another(kept: Any, wanted: Any, folder: Path) -> None:
    """A folder goes on with what it began with. Errors: InputError for another recipe."""
    told, asked = (
        {k: v for k, v in one.model_dump().items() if k not in ("output", "folder")}
        for one in (kept, wanted)
    )
    strange = [key for key, value in asked.items() if told[key] != value]
    if strange:
        raise InputError(
            f"{folder} was begun with another {strange[0]!r}; give another --output, or the recipe "
            "that it was begun with"
        )

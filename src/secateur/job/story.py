"""``run`` and ``resume``: a recipe from start to finish, or a search of recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateur.config import Recipe
from secateur.job import folders
from secateur.job.checking import check_recipe
from secateur.job.judgement import settled
from secateur.job.listening import Listener, Silent
from secateur.job.strategy_search import check_search, search_strategies
from secateur.job.subjects import load_subject
from secateur.job.working import work_on
from secateur.protocols import Subject
from secateur.sources.data._checking import named_splits


def run(recipe: Recipe, listener: Listener | None = None, command: str = "") -> dict[str, Any]:
    """Carry a recipe out in a new run folder; returns the metrics document."""
    listener = listener or Silent()
    check_recipe(recipe)
    check_search(recipe)
    subject = load_subject(recipe)
    with named_splits(subject.data):
        recipe = settled(recipe, subject)
    folder = folders.new_folder(recipe, command)
    listener.folder(str(folder))
    return carry_out(recipe, subject, folder, listener)


def resume(folder: str | Path, listener: Listener | None = None) -> dict[str, Any]:
    """Go on with a run; returns the metrics document that the undisturbed run gives."""
    folder = Path(folder)
    recipe = folders.open_folder(folder)
    listener = listener or Silent()
    listener.folder(str(folder))
    if (folder / folders.METRICS).is_file():
        listener.say("it is finished: nothing is left to do")
        return folders.read_json(folder / folders.METRICS)
    return carry_out(recipe, load_subject(recipe), folder, listener)


def carry_out(recipe: Recipe, subject: Subject, folder: Path, listener: Listener) -> dict[str, Any]:
    """What is left to do of a run; returns the metrics document."""
    with named_splits(subject.data):
        if recipe.search is not None and recipe.search.space:
            return search_strategies(recipe, subject, folder, listener)
        return work_on(recipe, subject, folder, listener)

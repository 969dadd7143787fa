"""The search of a run and its workers: the ledger, and what others need to join, in ``study/``.

search.json     the study under way, where its ledger is, and how its trials are made
prune-1.json    of the first cut: rungs of all groups, calibration samples
prune-1.safetensors     the dense-shaped model that its trials begin with
recipes.json    of a search of recipes: the first validation samples
journal.log     the ledger, where ``search.storage`` names no other place
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from secateur.config import Recipe, SearchSection
from secateur.job import folders
from secateur.job.quiet import STUDY
from secateur.job.rungs import Rungs, space_of, written
from secateur.job.trying import Trying
from secateur.job.work import Work
from secateur.searching import Space
from secateur.searching._ledger import Ledger
from secateur.structure.inputs import ExampleInputs
from secateur.surgery.storing import write_tensors
from secateur.surgery.tensors import unique_tensors

STATE = "search.json"
RECIPES = "recipes"  # the study of a search of recipes


def open_study(work: Work, step: int, rungs: Sequence[Rungs], trying: Trying) -> Ledger:
    """The ledger of a step's search of widths, made or found again; whoever wants to join is told
    of it.

    Errors: InputError where the storage cannot be opened.
    """
    section = work.recipe.search
    assert section is not None
    name = f"prune-{step}"
    state = _state(work.recipe, work.folder, name, last=step == work.recipe.pruning.steps)
    place = work.folder / STUDY
    if section.window > 1 or section.workers > 1 or section.engine:
        tensors = {n: t.cpu().contiguous() for n, t in unique_tensors(trying.dense).items()}
        write_tensors(place / f"{name}.safetensors", tensors)
        told = {
            "step": step,
            "classes": trying.classes,
            "seed": trying.seed,
            "batches": len(trying.samples),
            "samples": digest(trying.samples),
            "rungs": written(rungs),
        }
        folders.write_json(place / f"{name}.json", told)
    ledger = ledger_of(work.folder, state, space_of(rungs))
    folders.write_json(place / STATE, state)
    return ledger


def open_recipes(
    recipe: Recipe, folder: Path, space: Space, objectives: int, samples: Sequence[ExampleInputs]
) -> Ledger:
    """The ledger of a search of recipes, made or found again. samples: of the validation split, by
    which workers know that they have the same. Errors: InputError, as ``open_study``."""
    state = _state(recipe, folder, RECIPES, last=True)
    folders.write_json(folder / STUDY / f"{RECIPES}.json", {"samples": digest(samples)})
    ledger = ledger_of(folder, state, space, objectives)
    folders.write_json(folder / STUDY / STATE, state)
    return ledger


def _state(recipe: Recipe, folder: Path, study: str, last: bool) -> dict[str, Any]:
    section = recipe.search
    assert section is not None
    place = folder / STUDY
    place.mkdir(exist_ok=True)
    known = folders.read_json(place / STATE) if (place / STATE).is_file() else {}
    return {
        "id": known.get("id") or uuid.uuid4().hex[:12],  # storages may hold many runs
        "study": study,
        "storage": _storage(section, recipe),
        "timeout": section.timeout,
        "threads": recipe.threads or max(1, torch.get_num_threads() // max(1, section.workers)),
        "ended": False,
        "last": last,
    }


def end_study(folder: Path) -> None:
    """Tell those who join late that there is nothing to do."""
    path = folder / STUDY / STATE
    folders.write_json(path, {**folders.read_json(path), "ended": True})


def ledger_of(folder: Path, state: dict[str, Any], space: Space, objectives: int = 1) -> Ledger:
    """That of a state. Errors: InputError."""
    name = f"{state['id']}-{state['study']}"
    return Ledger(folder / STUDY, name, space, objectives, state["storage"])


def digest(samples: Sequence[ExampleInputs]) -> str:
    """Of samples: workers must have the same."""
    found = hashlib.sha256()
    for leaf in pytree.tree_leaves(list(samples)):
        if isinstance(leaf, torch.Tensor):
            found.update(repr((leaf.dtype, tuple(leaf.shape))).encode())
            found.update(
                leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            )
    return found.hexdigest()


def read_state(folder: Path) -> dict[str, Any] | None:
    """The study under way; None where no search has begun."""
    path = folder / STUDY / STATE
    return folders.read_json(path) if path.is_file() else None


def _storage(section: SearchSection, recipe: Recipe) -> str:
    """Files of SQLite start at the recipe's folder."""
    if not section.storage.startswith("sqlite"):
        return section.storage
    head, _, path = section.storage.partition(":///")
    return f"{head}:///{(Path(recipe.folder) / path).resolve()}"

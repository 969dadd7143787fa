"""Run folders: made, locked, described, listed."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from secateur.config import Recipe, load_recipe, write_recipe
from secateur.errors import InputError
from secateur.journal import NAME as JOURNAL
from secateur.measure.machine import processor

RECIPE = "recipe.yaml"
METRICS = "metrics.json"
# Half a file beside the whole one: its name, and a process, a random number or a word.
_PARTIAL = re.compile(
    r"\.(recipe\.yaml|(environment|metrics|plan|surgery|search|prune-\d+)\.json"
    r"|(model|dense|finetune|(train|prune)-\d+)\.\w+)\.([0-9]+|[0-9a-f]+\.tmp|partial)"
)


def new_folder(recipe: Recipe, command: str) -> Path:
    """Make the folder of a run, with its resolved recipe and its environment.

    Errors: InputError when a run stands there already, or one has just begun.
    """
    folder = Path(recipe.output) if recipe.output else _unused(Path("runs"), _stem(recipe.model))
    if (folder / JOURNAL).exists():
        raise InputError(
            f"there is a run in {folder} already; go on with 'secateur resume {folder}', or give "
            "another --output"
        )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give another --output")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        write_json(folder / "environment.json", environment(recipe, command))
        write_recipe(recipe.model_copy(update={"output": str(folder)}), folder / RECIPE)
    return folder


def open_folder(folder: Path) -> Recipe:
    """The recipe of a run. Errors: InputError when the folder is not a run's."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; list runs with: secateur runs")
    if not (folder / RECIPE).is_file():
        raise InputError(f"{folder} is not a run: it has no {RECIPE}")
    return load_recipe(folder / RECIPE)


def finished(folder: Path) -> Path:
    """The metrics of a finished run. Errors: InputError for no run, or an unfinished one."""
    open_folder(folder)
    if not (folder / METRICS).is_file():
        raise InputError(f"{folder} is not finished; go on with: secateur resume {folder}")
    return folder / METRICS


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process works in a run folder at a time. Errors: InputError when one already does."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"another process works in {folder}; wait for it or end it") from error
        yield


def sweep(folder: Path) -> None:
    """Remove what a killed process had half written, and nothing that is not a run's."""
    places = [folder, *(folder / name for name in ("model", "checkpoints", "exports", "study"))]
    for place in [*places, *folder.glob("steps/*")]:
        for path in place.glob(".*") if place.is_dir() else ():
            if not _PARTIAL.fullmatch(path.name):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def environment(recipe: Recipe, command: str) -> dict[str, Any]:
    """What the numbers of a run depend on beside its recipe."""
    import torch

    return {
        "command": command,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpu": processor(),
        "cores": os.cpu_count(),
        "threads": recipe.threads or torch.get_num_threads(),
        "device": recipe.device,
        "seed": recipe.seed,
    }


def list_runs(root: Path) -> list[dict[str, Any]]:
    """Every run below a folder: path, model, state and headline numbers, newest first.

    A run whose files cannot be read has the state ``unreadable``, and the reason as its ``error``.
    """
    found = []
    for recipe_file in sorted(root.glob("**/" + RECIPE)):
        entry: dict[str, Any] = {
            "run": str(recipe_file.parent), "model": "", "target": {}, "state": "unreadable",
            "metric": None, "flops": None, "error": "", "changed": recipe_file.stat().st_mtime,
        }  # fmt: skip
        try:
            entry |= _listed(recipe_file)
        except (InputError, OSError) as error:
            entry["error"] = str(error)
        found.append(entry)
    return sorted(found, key=lambda entry: -entry["changed"])


def _listed(recipe_file: Path) -> dict[str, Any]:
    """What ``list_runs`` says of a run. Errors: InputError for files that are not a run's."""
    recipe, path = load_recipe(recipe_file), recipe_file.parent / METRICS
    metrics = read_json(path) if path.is_file() else None
    entry = {
        "model": recipe.model,
        "target": recipe.target.model_dump(exclude_none=True),
        "state": "unfinished",
    }
    if metrics is None:
        return entry
    try:
        share = metrics["after"]["flops"] / max(metrics["before"]["flops"], 1)
        return {**entry, "state": "done", "metric": _headline(metrics), "flops": share}
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is not the metrics of a run; run its recipe again") from error


def read_json(path: Path) -> Any:
    """A JSON file. Errors: InputError for a missing or broken one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"there is no file {path}") from error
    except ValueError as error:
        raise InputError(f"{path} is not whole JSON ({error}); run the command again") from error


def write_json(path: Path, document: Any) -> None:
    """A JSON file, replaced in one step."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _headline(metrics: dict[str, Any]) -> dict[str, float] | None:
    name, values = metrics["metric"], metrics["after"]["metric"]
    return {name: values[name]} if values else None


def _stem(model: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", model.rpartition(":")[2]).strip("-") or "model"


def _unused(root: Path, stem: str) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = root / f"{stem}-{stamp}"
    number = 1
    while folder.exists():
        number += 1
        folder = root / f"{stem}-{stamp}-{number}"
    return folder

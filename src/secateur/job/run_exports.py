"""All exports of a run; one that fails does not take the run with it."""

from __future__ import annotations

from typing import Any

from torch import nn

from secateur.errors import SecateurError
from secateur.exporters import suffix_of
from secateur.exporters._fresh import sentence
from secateur.job.exporting import exported
from secateur.job.work import Work


def all_exports(
    work: Work, pruned: nn.Module
) -> tuple[dict[str, list[dict[str, Any]]], list[dict[str, str]]]:
    """Both models in every wanted format, below ``exports/``, and those that could not be made.

    What fails is told, and the others are made all the same: a run may have trained for days.
    """
    result: dict[str, list[dict[str, Any]]] = {"dense": [], "pruned": []}
    failed: list[dict[str, str]] = []
    for name in work.recipe.export:
        for side, model in (("dense", work.dense), ("pruned", pruned)):
            if name == "safetensors" and side == "dense":
                continue  # the run folder holds dense.safetensors
            work.listener.tick("measure", 0, f"exporting {side} to {name}")
            stem = "model" if side == "pruned" else "dense"
            target = work.folder / "exports" / f"{stem}{suffix_of(name)}"
            target.parent.mkdir(exist_ok=True)
            try:
                found = exported(name, model, target, work.recipe, work.subject)
            except Exception as error:  # a converter may raise anything
                failed.append({"name": name, "model": side, "error": _sentence(error)})
                work.listener.say(told(failed[-1]))
                continue
            result[side].append({**found, "path": f"exports/{found['path']}"})
    return {side: [{**e, "file": str(work.folder / e["path"])} for e in entries]
            for side, entries in result.items()}, failed  # fmt: skip


def told(failed: dict[str, str]) -> str:
    """An export that could not be made, in words."""
    return (
        f"the export {failed['name']!r} of the {failed['model']} model could not be made: "
        f"{failed['error']}"
    )


def _sentence(error: Exception) -> str:
    """What is meant for the user; of any other error its kind as well."""
    if isinstance(error, SecateurError):
        return str(error)
    return sentence(error)

"""The stages of a run that make pruned models, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from secateur.config import UNBUDGETED, TrainingSection
from secateur.job import steps, trainings
from secateur.job.sparsifying import STAGE, held, name_of, sparsified
from secateur.job.work import Work


def pruned(work: Work) -> None:
    """All steps of pruning, with the trainings between them."""
    recipe = work.recipe
    if not recipe.target.budgets() and recipe.pruning.scope not in UNBUDGETED:
        dense = work.journal.done("dense") or {}
        stage(work, "prune 1", "prune", lambda: steps.keep(work, dense.get("remove")))
        return
    for step in range(1, recipe.pruning.steps + 1):
        stage(work, f"prune {step}", "prune", lambda n=step: steps.prune(work, n))
        training = recipe.between
        if step < recipe.pruning.steps and training is not None and training.epochs:
            name = f"train {step}"
            stage(work, name, "train", lambda n=name, t=training: trainings.train(work, n, t))


def cut(work: Work) -> None:
    """Single weights to zero, where the recipe wants it; in rounds, with trainings between them."""
    section, training = work.recipe.sparsity, work.recipe.between
    if section is None:
        return
    for number in range(1, section.rounds + 1):
        name = name_of(section, number)
        stage(work, name, STAGE, lambda n=number: sparsified(work, n))
        if number < section.rounds and training is not None and training.epochs:
            name = f"train {name}"
            stage(work, name, "train", lambda n=name, t=training: trained(work, n, t))


def finetuned(work: Work) -> None:
    """The training at the end, where the recipe has one."""
    training = work.recipe.finetune
    if training is not None and training.epochs:
        stage(work, "finetune", "train", lambda: trained(work, "finetune", training))
        cut_chosen(work, "finetune", f"prune {recipe_steps(work) + 1}")


def cut_chosen(work: Work, training: str, name: str) -> bool:
    """The stage that removes units which a training brought to zero; whether there were any."""
    chosen = (work.journal.done(training) or {}).get("remove")
    if chosen:
        stage(work, name, "prune", lambda: steps.cut(work, name, chosen))
    return bool(chosen)


def recipe_steps(work: Work) -> int:
    """How many steps of pruning there were before the last training."""
    return work.recipe.pruning.steps if work.recipe.target.budgets() else 1


def trained(work: Work, name: str, training: TrainingSection) -> dict[str, Any]:
    """Train the model as it stands; what was zeroed stays zero."""
    return trainings.train(work, name, training, held)


def stage(work: Work, name: str, kind: str, action: Callable[[], dict[str, Any]]) -> None:
    """Do a stage that makes a pruned model, or take what it made before.

    The action saves a model into ``steps/NAME`` and returns what the journal keeps.
    """
    target = work.folder / "steps" / name.replace(" ", "-")
    event = work.journal.done(name)
    if event is None:
        started = time.perf_counter()
        result = action()
        event = work.journal.append(name, started, {"kind": kind, **result})
        work.listener.end(name, str(event.get("note", "")))
    else:
        work.listener.end(name, str(event.get("note", "")), reused=True)
    work.current = target

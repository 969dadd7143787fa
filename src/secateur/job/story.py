"""``run``: a recipe from start to finish, every arrow saved, so that ``resume`` can go on.

A stage is done when the journal says so; what it made lies in the run folder by then. The model
of a stage is always read back from there, so that an undisturbed run and a resumed one work on
the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from secateur.config import Recipe
from secateur.errors import InputError
from secateur.job import folders, steps, timing
from secateur.job.checking import check_recipe
from secateur.job.evaluating import with_dense_weights
from secateur.job.listening import Listener, Silent
from secateur.job.reachable import check_target
from secateur.job.reporting import write_results
from secateur.job.subjects import load_subject
from secateur.job.work import Work
from secateur.journal import Journal
from secateur.protocols import Subject
from secateur.runtimes import ready
from secateur.structure.structure import trace
from secateur.surgery.storing import write_tensors
from secateur.surgery.tensors import unique_tensors


def run(recipe: Recipe, listener: Listener | None = None, command: str = "") -> dict[str, Any]:
    """Carry a recipe out in a new run folder; returns the metrics document."""
    listener = listener or Silent()
    check_recipe(recipe)
    subject = load_subject(recipe)
    folder = folders.new_folder(recipe, command)
    listener.folder(str(folder))
    return work_on(recipe, subject, folder, listener)


def resume(folder: str | Path, listener: Listener | None = None) -> dict[str, Any]:
    """Go on with a run; returns the metrics document that the undisturbed run gives."""
    folder = Path(folder)
    recipe = folders.open_folder(folder)
    listener = listener or Silent()
    listener.folder(str(folder))
    if (folder / folders.METRICS).is_file():
        listener.say("it is finished: nothing is left to do")
        return folders.read_json(folder / folders.METRICS)
    return work_on(recipe, load_subject(recipe), folder, listener)


def work_on(recipe: Recipe, subject: Subject, folder: Path, listener: Listener) -> dict[str, Any]:
    """Do all stages of a run that are not done yet; returns the metrics document."""
    if recipe.latency is not None:  # what would otherwise stop a run at its end
        ready(recipe.latency.runtime, recipe.latency.precision)
    journal = Journal(folder)
    with folders.locked(folder), _threads(recipe.threads):
        folders.sweep(folder)
        started = time.perf_counter()
        listener.begin("trace")
        dense = subject.build()  # its weights come later: a structure knows of none
        structure = trace(dense, subject.example_inputs, part=recipe.part)
        if not structure.groups:
            raise InputError(
                f"nothing of {recipe.model} can leave: all {len(structure.frozen)} dimensions are "
                f"held, the first by {structure.frozen[0].op} ({structure.frozen[0].reason})"
            )
        work = Work(recipe, subject, folder, journal, listener, dense, structure)
        if journal.done("dense") is None and recipe.train_dense is not None:
            check_target(work)
        if journal.done("trace") is None:
            journal.append("trace", started, {"kind": "trace", "groups": len(structure.groups)})
        listener.end("trace", f"{len(structure.groups)} groups, {len(structure.frozen)} frozen")
        _dense(recipe, subject, folder, journal, listener)
        with_dense_weights(dense, folder)
        timing.prepare(work)
        for step in range(1, recipe.pruning.steps + 1):
            stage(work, f"prune {step}", "prune", lambda n=step: steps.prune(work, n))
            last = step == recipe.pruning.steps
            training = recipe.finetune if last else recipe.between
            if training is not None and training.epochs:
                name = "finetune" if last else f"train {step}"
                stage(work, name, "train", lambda n=name, t=training: steps.train(work, n, t))
        metrics = write_results(work)
    return metrics


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


def _dense(
    recipe: Recipe, subject: Subject, folder: Path, journal: Journal, listener: Listener
) -> None:
    """The dense model: trained first where the recipe says so, and kept in the run folder."""
    event = journal.done("dense")
    reused = event is not None
    model = subject.model
    if event is None:
        started = time.perf_counter()
        history: list[dict[str, Any]] = []
        if recipe.train_dense is not None:
            model, history = steps.train_dense(recipe, subject, folder, listener)
        write_tensors(
            folder / "dense.safetensors", {n: t.cpu() for n, t in unique_tensors(model).items()}
        )
        metric = steps.validated(recipe, subject, model)
        note = steps.described(recipe, metric)
        event = journal.append(
            "dense",
            started,
            {"kind": "dense", "note": note, "validation": metric, "history": history},
        )
    listener.end("dense", str(event.get("note", "")), reused)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""All stages of one run, every arrow saved, so that it can go on where it was cut off.

A stage is done when the journal says so; what it made lies in the run folder by then. The model
of a stage is always read back from there, so that an undisturbed run and a resumed one work on
the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from secateur.config import Recipe
from secateur.errors import InputError
from secateur.job import folders, timing, trainings
from secateur.job.evaluating import with_dense_weights
from secateur.job.exporting import check_exports
from secateur.job.listening import Listener
from secateur.job.methods import methods_of
from secateur.job.reachable import check_target
from secateur.job.reporting import write_results
from secateur.job.stages import cut, finetuned, pruned
from secateur.job.validating import described, validated
from secateur.job.work import Work
from secateur.journal import Journal
from secateur.protocols import Subject
from secateur.runtimes import ready
from secateur.structure.structure import trace
from secateur.surgery.storing import write_tensors
from secateur.surgery.tensors import unique_tensors


def work_on(recipe: Recipe, subject: Subject, folder: Path, listener: Listener) -> dict[str, Any]:
    """Do all stages of a run that are not done yet; returns the metrics document."""
    with folders.locked(folder), threads(recipe.threads):
        work = begun(recipe, subject, folder, listener)
        if work.journal.done("prune 1") is None:
            check_target(work)  # scores take minutes, and have no say in it
        timing.prepare(work)
        pruned(work)
        cut(work)
        finetuned(work)
        return write_results(work)


def begun(recipe: Recipe, subject: Subject, folder: Path, listener: Listener) -> Work:
    """The first two stages: the structure, and the dense model, trained where it has to be."""
    for section in (recipe.train_dense, recipe.between, recipe.finetune):
        if section is not None:
            methods_of(section)  # bad settings end a run at once
    if recipe.latency is not None:  # what would otherwise stop a run at its end
        ready(recipe.latency.runtime, recipe.latency.precision)
    journal = Journal(folder)
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
    check_exports(recipe, dense, structure)
    work = Work(recipe, subject, folder, journal, listener, dense, structure)
    if journal.done("dense") is None and recipe.train_dense is not None:
        check_target(work)
    if journal.done("trace") is None:
        journal.append("trace", started, {"kind": "trace", "groups": len(structure.groups)})
    listener.end("trace", f"{len(structure.groups)} groups, {len(structure.frozen)} frozen")
    _dense(recipe, subject, folder, journal, listener)
    with_dense_weights(dense, folder)
    return work


def _dense(
    recipe: Recipe, subject: Subject, folder: Path, journal: Journal, listener: Listener
) -> None:
    """The dense model: trained first where the recipe says so, and kept in the run folder."""
    event = journal.done("dense")
    reused = event is not None
    model = subject.model
    if event is None:
        started = time.perf_counter()
        told: dict[str, Any] = {"history": []}
        if recipe.train_dense is not None:
            model, told = trainings.train_dense(recipe, subject, folder, listener)
        write_tensors(
            folder / "dense.safetensors", {n: t.cpu() for n, t in unique_tensors(model).items()}
        )
        metric = validated(recipe, subject, model)
        note = described(recipe, metric)
        event = journal.append(
            "dense",
            started,
            {"kind": "dense", "note": note, "validation": metric, **told},
        )
    listener.end("dense", str(event.get("note", "")), reused)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """A number of threads for a while."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

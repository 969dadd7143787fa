"""What the points of a search of widths are worth to a worker, built from the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from secateur.errors import InputError
from secateur.job import folders
from secateur.job.calibrating import calibration, is_foreign
from secateur.job.quiet import STUDY, busy
from secateur.job.rungs import Rungs, read, removal_of
from secateur.job.studies import digest, read_state
from secateur.job.subjects import load_subject
from secateur.job.trying import Trying
from secateur.job.width_trials import WidthsTried, standings_of
from secateur.repair.streaming import fitting
from secateur.searching import Question
from secateur.searching._evaluation import Evaluate
from secateur.structure.structure import trace
from secateur.surgery.storing import read_tensors
from secateur.surgery.tensors import unique_tensors


def evaluation(folder: Path, state: dict[str, Any]) -> tuple[Evaluate, tuple[Rungs, ...]]:
    """What a study's points are worth, as the process that began it finds it. Errors: InputError
    where model or data are not those of the run."""
    with busy(folder):
        torch.set_num_threads(int(state["threads"]))
        told = folders.read_json(folder / STUDY / f"{state['study']}.json")
        rungs = read(told["rungs"])
        trying = _trying(folder, state, told)

    tried = WidthsTried(
        trying, lambda point: removal_of(rungs, point), standings_of(folder, state["study"])
    )

    def evaluate(question: Question) -> float:
        with busy(folder):
            return tried(question)

    return evaluate, rungs


def _trying(folder: Path, state: dict[str, Any], told: dict[str, Any]) -> Trying:
    recipe = folders.open_folder(folder)
    subject = load_subject(recipe)
    dense = subject.build().cpu().eval()
    structure = trace(dense, subject.example_inputs, part=recipe.part)
    tensors = read_tensors(folder / STUDY / f"{state['study']}.safetensors")
    with torch.no_grad():
        for name, tensor in unique_tensors(dense).items():
            if name not in tensors or tensors[name].shape != tensor.shape:
                raise InputError(f"the model of {folder} has another {name!r} here; bring its code")
            tensor.copy_(tensors[name])
    batches = calibration(recipe, subject)
    assert batches is not None, "a search needs calibration, and the run was checked for it"
    samples = fitting(dense, structure, [batch for batch, _ in batches])
    if len(samples) != told["batches"] or digest(samples) != told["samples"]:
        raise InputError(
            f"the calibration samples of {folder} are others here; bring the same data"
        )
    return Trying(dense, structure, samples, told["classes"], told["seed"], is_foreign(recipe))


def evaluation_of(folder: str) -> Evaluate:
    """For engines that build it elsewhere. Errors: InputError, as ``evaluation``."""
    state = read_state(Path(folder))
    if state is None:
        raise InputError(f"there is no search in {folder}; every machine needs to see this folder")
    return evaluation(Path(folder), state)[0]

"""A worker of a run's search: builds what the trials need from the run's folder, and makes them."""

from __future__ import annotations

import math
import os
import socket
import time
import uuid
from pathlib import Path
from typing import Any

import torch

from secateur.config import SearchSection
from secateur.errors import InputError
from secateur.job import folders
from secateur.job.calibrating import calibration, is_foreign
from secateur.job.listening import Listener
from secateur.job.quiet import STUDY, busy
from secateur.job.rungs import Rungs, read, removal_of
from secateur.job.studies import digest, ledger_of, read_state
from secateur.job.subjects import load_subject
from secateur.job.trying import Trying
from secateur.repair.streaming import fitting
from secateur.searching import Point
from secateur.searching._evaluation import Evaluate
from secateur.searching._ledger import Row
from secateur.searching._serving import serve
from secateur.structure.structure import trace
from secateur.surgery.storing import read_tensors
from secateur.surgery.tensors import unique_tensors

LOOK = 1.0  # seconds between looks for a search that has not begun


def work_for(folder: Path, name: str, listener: Listener) -> int:
    """Make trials of a run's searches until it has no more; how many they were.

    name: of this worker, empty for one that joins. It waits for a search that has not begun.
    Errors: InputError for a folder that is no run, a search that takes no workers, data or a model
    that are not those of the run, and a ledger that cannot be read or written.
    """
    recipe = folders.open_folder(folder)
    if not name:
        refuse(folder, recipe.search)
        name = own_name()
    count = 0
    done: set[str] = set()
    listener.say(f"worker {name}")
    while not (folder / folders.METRICS).is_file():
        state = read_state(folder)
        if state is not None and state["ended"] and state["last"]:
            break
        if state is None or state["ended"] or state["study"] in done:
            time.sleep(LOOK)
            continue
        count += _served(folder, state, name, listener)
        done.add(state["study"])
    listener.say(f"the search has ended; {count} trials were made here")
    return count


def own_name() -> str:
    """A name that no other worker has."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:4]}"


def refuse(folder: Path, search: SearchSection | None) -> None:
    """Errors: InputError for a search that no worker can join."""
    if search is None or search.space:
        raise InputError(f"{folder} makes no trials that workers can make; its recipe searches no "
                         "widths")  # fmt: skip
    if search.engine:
        raise InputError(f"the search of {folder} runs on Ray; give Ray more machines instead")
    if search.window < 2:
        raise InputError(
            f"the search of {folder} has one trial under way at a time, so a worker would wait for "
            "ever; begin it with search.parallel of 2 or more"
        )


def _served(folder: Path, state: dict[str, Any], name: str, listener: Listener) -> int:
    evaluate, rungs = evaluation(folder, state)
    ledger = ledger_of(folder, state, rungs)
    timeout = math.inf if state["timeout"] is None else float(state["timeout"])

    def tell(row: Row) -> None:
        listener.say(f"trial {row.number + 1} of {state['study']} is done")

    def goes_on() -> bool:
        now = read_state(folder)
        return now is not None and not now["ended"] and now["study"] == state["study"]

    return serve(ledger, evaluate, name, timeout=timeout, goes_on=goes_on, tell=tell)


def evaluation(folder: Path, state: dict[str, Any]) -> tuple[Evaluate, tuple[Rungs, ...]]:
    """What a study's points are worth, as the process that began it finds it. Errors: InputError
    where model or data are not those of the run."""
    with busy(folder):
        torch.set_num_threads(int(state["threads"]))
        told = folders.read_json(folder / STUDY / f"{state['study']}.json")
        rungs = read(told["rungs"])
        trying = _trying(folder, state, told)

    def evaluate(point: Point) -> float:
        with busy(folder):
            return float(trying(removal_of(rungs, point)).mean())

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

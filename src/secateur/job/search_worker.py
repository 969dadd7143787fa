"""A worker of a run's searches: makes trials of widths, or of recipes, until there are no more."""

from __future__ import annotations

import math
import os
import socket
import time
import uuid
from pathlib import Path
from typing import Any

from secateur.config import SearchSection
from secateur.errors import InputError
from secateur.job import folders
from secateur.job.listening import Listener
from secateur.job.rungs import space_of
from secateur.job.strategy_worker import recipe_evaluation
from secateur.job.studies import RECIPES, ledger_of, read_state
from secateur.job.width_worker import evaluation
from secateur.searching._evaluation import Evaluate
from secateur.searching._ledger import Ledger, Row
from secateur.searching._serving import serve

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
    if search is None:
        raise InputError(f"{folder} makes no trials that workers can make: it has no search")
    if search.engine:
        raise InputError(f"the search of {folder} runs on Ray; give Ray more machines instead")
    if search.window < 2:
        raise InputError(
            f"the search of {folder} has one trial under way at a time, so a worker would wait for "
            "ever; begin it with search.parallel of 2 or more"
        )


def _served(folder: Path, state: dict[str, Any], name: str, listener: Listener) -> int:
    evaluate, ledger = _built(folder, state)
    timeout = math.inf if state["timeout"] is None else float(state["timeout"])

    def tell(row: Row) -> None:
        listener.say(f"trial {row.number + 1} of {state['study']} is done")

    def goes_on() -> bool:
        now = read_state(folder)
        return now is not None and not now["ended"] and now["study"] == state["study"]

    return serve(ledger, evaluate, name, timeout=timeout, goes_on=goes_on, tell=tell)


def _built(folder: Path, state: dict[str, Any]) -> tuple[Evaluate, Ledger]:
    if state["study"] == RECIPES:
        evaluate, space, objectives = recipe_evaluation(folder, state)
        return evaluate, ledger_of(folder, state, space, objectives)
    evaluate, rungs = evaluation(folder, state)
    return evaluate, ledger_of(folder, state, space_of(rungs))

"""Who makes the trials of a run's search."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from secateur.config import SearchSection
from secateur.job.quiet import STUDY
from secateur.searching._crew import Crew
from secateur.searching._evaluation import Engine, Evaluate
from secateur.searching._ledger import Ledger
from secateur.searching._ray import RayCrew


def crew_of(
    section: SearchSection,
    folder: Path,
    ledger: Ledger,
    evaluate: Evaluate,
    make: Callable[[str], Evaluate],
    say: Callable[[str], None],
) -> AbstractContextManager[Engine]:
    """This process, processes that it starts, or Ray, as the recipe says.

    make: builds what evaluates from the run's folder, elsewhere. say: hears of workers that died.
    Errors: InputError where Ray is not installed.
    """
    timeout = math.inf if section.timeout is None else section.timeout
    if section.engine:
        return RayCrew(
            ledger, partial(make, os.fspath(folder.resolve())),
            workers=section.workers if section.workers > 1 else section.window,
            address=section.engine.partition(":")[2], timeout=timeout, say=say,
        )  # fmt: skip

    def command(name: str) -> list[str]:
        return [sys.executable, "-m", "secateur", "worker", os.fspath(folder), "--name", name]

    return Crew(
        ledger, evaluate,
        workers=section.workers, command=command, logs=folder / STUDY, timeout=timeout, say=say,
    )  # fmt: skip

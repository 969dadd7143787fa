"""Who makes the trials of a run's search."""

from __future__ import annotations

import math
import os
import sys
from contextlib import AbstractContextManager
from functools import partial

from secateur.job.quiet import STUDY
from secateur.job.search_worker import evaluation_of
from secateur.job.work import Work
from secateur.searching._crew import Crew
from secateur.searching._evaluation import Engine, Evaluate
from secateur.searching._ledger import Ledger
from secateur.searching._ray import RayCrew


def crew_of(work: Work, ledger: Ledger, evaluate: Evaluate) -> AbstractContextManager[Engine]:
    """This process, processes that it starts, or Ray, as the recipe says.

    Errors: InputError where Ray is not installed.
    """
    section = work.recipe.search
    assert section is not None
    timeout = math.inf if section.timeout is None else section.timeout
    say = work.listener.say
    if section.engine:
        return RayCrew(
            ledger, partial(evaluation_of, os.fspath(work.folder.resolve())),
            workers=section.workers if section.workers > 1 else section.window,
            address=section.engine.partition(":")[2], timeout=timeout, say=say,
        )  # fmt: skip

    def command(name: str) -> list[str]:
        return [sys.executable, "-m", "secateur", "worker", os.fspath(work.folder), "--name", name]

    return Crew(
        ledger, evaluate,
        workers=section.workers, command=command, logs=work.folder / STUDY, timeout=timeout,
        say=say,
    )  # fmt: skip

"""A model in a process of its own, forked from one that has imported all libraries already."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from typing import Any

# Imports take as long as a small model: 5 of 15 seconds.
PRELOADED = ["model_zoo.checking", "model_zoo.warm"]


def checked(spec: str, limit: float) -> dict[str, Any]:
    """The row of a model; a process that dies or takes longer than ``limit`` seconds fails."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_check, args=(spec, there))
    process.start()
    there.close()
    try:
        if not here.poll(limit):
            return {"verdict": "failed", "why": f"not done after {limit:.0f} s"}
        row = here.recv()
        process.join()
        return row
    except EOFError:
        process.join()
        return {"verdict": "failed", "why": f"the process ended with {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _check(spec: str, answer: Connection) -> None:
    from model_zoo.checking import check

    answer.send(check(spec))

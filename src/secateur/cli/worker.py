"""``secateur worker``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from secateur.cli import command
from secateur.cli._talking import Talk, answer


@command("worker")
def worker(
    run: Annotated[Path, typer.Argument(help="Folder of a run whose search is under way.")],
    name: Annotated[str, typer.Option(hidden=True)] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, no progress.")] = False,
) -> None:
    """Join a search: make trials of a run, from another process or machine, until it ends."""
    from secateur.job.folders import open_folder

    open_folder(run)  # refuses what is no run, without torch
    if name:
        from secateur.searching._serving import end_with_parent

        end_with_parent()
    from secateur.job.search_worker import work_for

    talk = Talk(quiet=as_json)
    try:
        count = work_for(run, name, talk)
    except KeyboardInterrupt:
        print("interrupted; its trial waits for another worker", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        answer({"run": str(run), "trials": count})

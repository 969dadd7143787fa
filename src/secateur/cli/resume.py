"""``secateur resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli import command
from secateur.cli._talking import finish, talking


@command("resume")
def resume(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, no progress.")] = False,
) -> None:
    """Go on with a run that was interrupted; the result is that of the undisturbed run."""
    from secateur.job.folders import open_folder

    open_folder(run)  # refuses what is no run, without torch
    with talking(as_json) as talk:
        from secateur.job import story

        metrics = story.resume(run, talk)
    finish(metrics, as_json, str(run))

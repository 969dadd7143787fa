"""``secateur eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli import command
from secateur.cli._talking import answer


@command("eval")
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    dense: Annotated[bool, typer.Option("--dense", help="The dense model instead.")] = False,
    split: Annotated[
        str | None, typer.Option(help="train, val or test; by default test, or val without one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Evaluate the model of a run on a split of its data."""
    from secateur.job.folders import open_folder

    open_folder(run)  # refuses what is no run, without torch
    from secateur.job.evaluating import evaluate_run

    split, found = evaluate_run(run, dense, split)
    if as_json:
        answer({"run": str(run), "split": split, "dense": dense, **found})
        return
    count = found.pop("count")
    values = ", ".join(f"{name} {value:.6g}" for name, value in reversed(found.items()))
    print(f"{values} on {count} samples of the {split} split")

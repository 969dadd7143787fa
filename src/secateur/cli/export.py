"""``secateur export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli import command
from secateur.cli._talking import answer


@command("export")
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    to: Annotated[str, typer.Option("--to", help="Formats, comma-separated.")] = "onnx",
    output: Annotated[Path | None, typer.Option(help="Folder; RUN/exports by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Export the pruned model of a run and check it against PyTorch."""
    from secateur.job.folders import open_folder

    open_folder(run)  # refuses what is no run, without torch
    from secateur.job.evaluating import export_run

    found = export_run(run, [name.strip() for name in to.split(",")], output)
    if as_json:
        answer({"run": str(run), "exports": found})
        return
    for entry in found:
        print(f"{entry['name']}: {entry['path']}, {entry['bytes']} bytes, largest difference "
              f"{entry['max_abs']:.1e}")  # fmt: skip

"""``secateur report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli import command
from secateur.cli._talking import answer


@command("report")
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Write report.html of a run anew, and print the before/after table."""
    from secateur.job.folders import finished, read_json
    from secateur.reports.html import write_html
    from secateur.reports.terminal import print_table

    metrics = read_json(finished(run))
    path = run / "report.html"
    write_html(metrics, path)
    if as_json:
        answer({"report": str(path), **metrics})
    else:
        print_table(metrics)
        print(f"report: {path}")
    if show:
        typer.launch(path.resolve().as_uri())

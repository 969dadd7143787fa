"""``secateur runs``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from secateur.cli import command
from secateur.cli._talking import answer


@command("runs")
def runs(
    root: Annotated[Path, typer.Argument(help="Folder to look below.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """List the runs below a folder, newest first."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from secateur.job.folders import list_runs

    found = list_runs(root)
    if as_json:
        answer({"runs": found})
        return
    table = Table("run", "model", "target", "state", "FLOPs", "metric")
    for entry in found:
        target = ", ".join(f"{k} {v}" for k, v in entry["target"].items())
        flops = "" if entry["flops"] is None else f"{entry['flops']:.1%}"
        metric = ", ".join(f"{k} {v:.4g}" for k, v in (entry["metric"] or {}).items())
        if entry["error"]:
            print(f"unreadable: {entry['error']}", file=sys.stderr)
        table.add_row(
            escape(entry["run"]), escape(entry["model"]), target, entry["state"], flops, metric
        )
    Console().print(table if found else f"no runs below {root}")

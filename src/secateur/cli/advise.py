"""``secateur advise``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from secateur.cli import command
from secateur.cli._talking import answer, talking


@command("advise")
def advise(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    samples: Annotated[int, typer.Option(help="Validation samples to answer.", min=1)] = 2000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Dense or pruned, in f32, bf16 or int8, in which runtime: all measured, one advised."""
    from secateur.job.advising import advise as measure
    from secateur.job.advising import check_folder

    check_folder(run)
    with talking(as_json) as talk:
        document = measure(run, talk, samples)
    if as_json:
        answer(document)
        return
    _print(document)


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from secateur.quantities import format_bytes, format_seconds

    console = Console()
    table = Table()
    for head in ("model", "runtime", "precision"):
        table.add_column(head)
    for head in ("time", "speed", document["metric"], "file"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("")
    for way in document["ways"]:
        names = (way["model"], way["runtime"], way["precision"])
        if way["error"]:
            table.add_row(*names, "", "", "", "", way["error"])
            continue
        value = "" if way["value"] is None else f"{way['value']:.4f}"
        taken = all(document["advice"][k] == way[k] for k in ("model", "runtime", "precision"))
        mark = "advised" if taken else ("" if way["fits"] else "loses too much")
        table.add_row(
            *names, format_seconds(way["seconds"]), f"{way['speedup'][0]:.2f}x", value,
            format_bytes(way["bytes"]), mark,
        )  # fmt: skip
    console.print(table)
    console.print(document["sentence"], highlight=False)

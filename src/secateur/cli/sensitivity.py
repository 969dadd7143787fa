"""``secateur sensitivity``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from secateur.cli import command
from secateur.cli._starting import read, refuse_another
from secateur.cli._talking import answer, talking
from secateur.errors import InputError


@command("sensitivity")
def sensitivity(
    recipe: Annotated[str, typer.Argument(help="A recipe (YAML), or a model spec.")],
    levels: Annotated[
        str, typer.Option(help="Shares of a group's units that leave.")
    ] = "0.25,0.5,0.75",
    data: Annotated[str | None, typer.Option(help="Data spec: digits, imagefolder:DIR.")] = None,
    criterion: Annotated[
        str | None, typer.Option(help="Which units of a group leave first.")
    ] = None,
    output: Annotated[str | None, typer.Option(help="Folder; one that exists goes on.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything that draws.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, no progress.")] = False,
) -> None:
    """What each group alone costs the model, at a few levels, and where it hurts least."""
    from secateur.config import read_recipe
    from secateur.job.checking import check_recipe

    document: dict[str, Any] = read(recipe)
    document.pop("search", None)
    for key, value in (("data", data), ("output", output), ("seed", seed)):
        if value is not None:
            document[key] = value
    if criterion is not None:
        document["pruning"] = {**(document.get("pruning") or {}), "criterion": criterion}
    checked = read_recipe(document, recipe)
    check_recipe(checked)
    shares = _shares(levels)
    with talking(as_json, "the same command with its --output goes on") as talk:
        from secateur.job import folders
        from secateur.job.judgement import settled
        from secateur.job.sensitivity import sensitivity as measured
        from secateur.job.subjects import load_subject
        from secateur.reports.sensitivity import write_page

        subject = load_subject(checked)
        checked = settled(checked, subject)
        name = Path(checked.output) if checked.output else None
        if name is not None and (name / folders.RECIPE).is_file():
            folder = name
            refuse_another(folders.open_folder(folder), checked, folder)
        else:
            folder = folders.new_folder(checked, shlex.join(["secateur", *sys.argv[1:]]))
        talk.say(f"folder: {folder}")
        found = measured(checked, subject, folder, shares, talk)
        page = write_page(found, folder / "sensitivity.html")
    if as_json:
        answer({**found, "folder": str(folder)})
        return
    _print(found)
    print(f"page: {page}")


def _shares(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--levels wants numbers such as 0.25,0.5; got {text!r}") from error
    wrong = [level for level in found if not 0 < level < 1]
    if wrong:  # before a folder is made
        raise InputError(f"--levels wants shares between 0 and 1, such as 0.5; got {wrong[0]:g}")
    return found


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    metric = found["metric"]
    table = Table(title=f"Sensitivity of {found['model']}, the least sensitive group first")
    table.add_column("group", overflow="fold")
    for head in ("units", "leave", metric, "loss", "FLOPs left"):
        table.add_column(head, justify="right", no_wrap=True)
    dense = found["dense"]
    table.add_row("(dense)", "", "", f"{dense[metric]:.4g}", f"{dense['loss']:.4g}", "100.0%")
    for group in found["groups"]:
        for place, point in enumerate(group["points"]):
            table.add_row(
                group["group"] if not place else "", str(group["units"]) if not place else "",
                str(point["removed"]), f"{point[metric]:.4g}", f"{point['loss']:.4g}",
                f"{point['flops']:.1%}",
            )  # fmt: skip
    Console().print(table)

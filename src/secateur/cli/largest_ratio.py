"""``secateur largest-ratio``."""

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


@command("largest-ratio")
def largest_ratio(
    recipe: Annotated[str, typer.Argument(help="A recipe (YAML), or a model spec.")],
    margin: Annotated[str, typer.Option(help="Points of error that may be lost.")] = "1pt",
    over: Annotated[
        str,
        typer.Option(help="Key that the ratio is written to: target.flops, sparsity.zeros, ..."),
    ] = "",
    step: Annotated[float, typer.Option(help="Distance of the ratios looked at.")] = 0.05,
    data: Annotated[str | None, typer.Option(help="Data spec: digits, imagefolder:DIR.")] = None,
    output: Annotated[str | None, typer.Option(help="Folder; one that exists goes on.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything that draws.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, no progress.")] = False,
) -> None:
    """The largest ratio whose validation error stays within a margin of dense, by bisection."""
    from secateur.config import read_recipe
    from secateur.job.checking import check_recipe
    from secateur.quantities import parse_quantity

    document: dict[str, Any] = read(recipe)
    document.pop("search", None)
    for key, value in (("data", data), ("output", output), ("seed", seed)):
        if value is not None:
            document[key] = value
    checked = read_recipe(document, recipe)
    check_recipe(checked)
    knob = over or ("sparsity.zeros" if checked.sparsity is not None else "target.flops")
    points = parse_quantity(margin, "drop").value
    if not 0 < step <= 0.5:
        raise InputError(f"--step is {step}; give a share above 0 and up to 0.5, such as 0.05")
    levels = [round(step * n, 10) for n in range(1, round(1 / step) + 1) if step * n < 1 - 1e-9]
    with talking(as_json, "the same command with its --output goes on") as talk:
        from secateur.job import folders
        from secateur.job.judgement import settled
        from secateur.job.largest_ratio import largest_ratio as found_ratio
        from secateur.job.subjects import load_subject
        from secateur.reports.ratio import write_page

        subject = load_subject(checked)
        checked = settled(checked, subject)
        name = Path(checked.output) if checked.output else None
        if name is not None and (name / folders.RECIPE).is_file():
            folder = name
            refuse_another(folders.open_folder(folder), checked, folder)
        else:
            folder = folders.new_folder(checked, shlex.join(["secateur", *sys.argv[1:]]))
        talk.say(f"folder: {folder}")
        found = found_ratio(checked, subject, folder, points, levels, knob, talk)
        page = write_page(found, folder / "ratio.html")
    if as_json:
        answer({**found, "folder": str(folder)})
        return
    print(found["words"])
    if found["set"]:
        print(f"run it: secateur run {shlex.quote(recipe)} --set {found['set']}")
    print(f"page: {page}")

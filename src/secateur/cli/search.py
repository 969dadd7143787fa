"""``secateur search``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from secateur.cli import command
from secateur.cli._starting import read, start


@command("search")
def search(
    recipe: Annotated[str, typer.Argument(help="A recipe (YAML).")],
    algorithm: Annotated[
        str | None, typer.Option(help="auto, annealing, genetic, swarm, tpe, random, ...")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Trials at most.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Minutes of trials at most.")] = None,
    unseeded: Annotated[
        bool, typer.Option("--unseeded", help="Begin without the knapsack's answer and uniform.")
    ] = False,
    output: Annotated[str | None, typer.Option(help="Folder of the run.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything that draws.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, no progress.")] = False,
) -> None:
    """Run a recipe whose widths are searched by trials on the compensated model."""
    document: dict[str, Any] = read(recipe)
    section = dict(document.get("search") or {})
    for key, value in (("algorithm", algorithm), ("trials", trials), ("minutes", minutes)):
        if value is not None:
            section[key] = value
    if unseeded:
        section["seeded"] = False
    document["search"] = section
    for key, value in (("output", output), ("seed", seed)):
        if value is not None:
            document[key] = value
    start(document, recipe, as_json)

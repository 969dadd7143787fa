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
    workers: Annotated[
        int | None, typer.Option(help="Processes that make trials; 1: this one alone.")
    ] = None,
    parallel: Annotated[
        int | None, typer.Option(help="Trials under way at a time; as many as workers.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds of a trial at most.")] = None,
    storage: Annotated[
        str | None, typer.Option(help="URL of the ledger; a journal in the run's folder if not.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="ray or ray:ADDRESS, in place of own processes.")
    ] = None,
    output: Annotated[str | None, typer.Option(help="Folder of the run.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything that draws.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, no progress.")] = False,
) -> None:
    """Search the widths of a recipe, or its space, by trials, and carry the best one out."""
    document: dict[str, Any] = read(recipe)
    section = dict(document.get("search") or {})
    given = {
        "algorithm": algorithm, "trials": trials, "minutes": minutes, "workers": workers,
        "parallel": parallel, "timeout": timeout, "storage": storage, "engine": engine,
    }  # fmt: skip
    section |= {key: value for key, value in given.items() if value is not None}
    if unseeded:
        section["seeded"] = False
    document["search"] = section
    for key, value in (("output", output), ("seed", seed)):
        if value is not None:
            document[key] = value
    start(document, recipe, as_json)

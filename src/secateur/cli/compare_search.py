"""``secateur compare-search``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from secateur.cli import command
from secateur.cli._talking import answer, talking


@command("compare-search")
def compare_search(
    subject: Annotated[
        str,
        typer.Argument(
            help="A recipe (YAML), a recorded table (JSONL), or landscapes: three whose best point "
            "is known."
        ),
    ] = "landscapes",
    algorithms: Annotated[
        str, typer.Option(help="Names with commas between them, or all.")
    ] = "auto,annealing,tpe,random",
    trials: Annotated[int, typer.Option(help="Evaluations of each search.", min=1)] = 50,
    seeds: Annotated[int, typer.Option(help="Searches of each algorithm.", min=1)] = 3,
    begin: Annotated[
        str, typer.Option(help="seeded (as searches do), unseeded, or both.")
    ] = "seeded",
    output: Annotated[Path, typer.Option(help="Folder of the comparison.")] = Path(
        "runs/compare-search"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, no progress.")] = False,
) -> None:
    """Search algorithms side by side, at equal evaluations, over seeds."""
    from secateur.errors import InputError
    from secateur.searching import ALGORITHMS

    begun = {"seeded": [True], "unseeded": [False], "both": [True, False]}.get(begin)
    if begun is None:
        raise InputError(f"--begin is {begin!r}; give seeded, unseeded or both")
    names = [name.strip() for name in algorithms.split(",") if name.strip()]
    names = list(ALGORITHMS.names()) if names == ["all"] else list(dict.fromkeys(names))
    if not names:
        raise InputError("--algorithms names none; give some, such as auto,annealing, or all")
    known: dict[str, Any] = {"trials": trials, "seeds": seeds, "output": output}
    with talking(as_json) as talk:
        try:
            document = _compared(subject, names, begun, known, talk)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on where it stopped", file=sys.stderr)
            raise typer.Exit(130) from None
    if as_json:
        answer(document)
        return
    _print(document)
    print(f"report: {output}/comparison.html")


def _compared(
    subject: str, names: list[str], begun: list[bool], known: dict[str, Any], talk: Any
) -> dict[str, Any]:
    from secateur.cli._starting import read
    from secateur.config import read_recipe
    from secateur.errors import InputError
    from secateur.job import comparing
    from secateur.job.checking import check_recipe
    from secateur.searching._landscapes import LANDSCAPES

    if not subject.endswith((".yaml", ".yml")):
        if subject not in ("landscapes", *LANDSCAPES) and not Path(subject).is_file():
            raise InputError(
                f"there is no file {subject}; give a recipe (.yaml), a recorded table, or one of "
                f"landscapes, {', '.join(LANDSCAPES)}"
            )
        places = comparing.named([subject])
        return comparing.compare_landscapes(places, names, begun, listener=talk, **known)
    document = read(subject)
    if not document.get("search"):
        document["search"] = {"algorithm": names[0], "trials": known["trials"]}
    recipe = read_recipe(document, subject)
    if recipe.search is not None and recipe.search.space:
        raise InputError(
            f"{subject} searches recipes (search.space); compare-search compares searches of widths"
        )
    check_recipe(recipe)
    return comparing.compare_live(recipe, names, begun, listener=talk, **known)


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from secateur.reports.comparison import rows

    console = Console()
    for subject in document["subjects"]:
        for seeded in sorted({a["seeded"] for a in subject["algorithms"]}):
            header, body = rows(subject, seeded)
            begun = "with seeds" if seeded else "without seeds"
            table = Table(title=f"{subject['name']}, {begun}", title_justify="left")
            for number, name in enumerate(header):
                table.add_column(name, justify="right" if number else "left", no_wrap=True)
            for row in body:
                table.add_row(*row)
            console.print(table)
        if "best" in subject:
            known = f"best {subject['best']:.4g}, uniform {subject['uniform']:.4g}"
            console.print(f"known: {known}", markup=False, highlight=False)

"""``secateur compare-methods``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from secateur.cli import command
from secateur.cli._starting import read
from secateur.cli._talking import answer, talking
from secateur.errors import InputError


@command("compare-methods")
def compare_methods(
    recipe: Annotated[str, typer.Argument(help="A recipe (YAML) with a section 'compare'.")],
    output: Annotated[
        Path, typer.Option(help="Folder of the comparison; one that exists goes on.")
    ] = Path("runs/compare-methods"),
    seeds: Annotated[int | None, typer.Option(help="In place of the recipe's.", min=1)] = None,
    workers: Annotated[int, typer.Option(help="Processes that share the work.", min=1)] = 1,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the tables and the picture there as well (.md).")
    ] = None,
    part: Annotated[str, typer.Option(hidden=True)] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, no progress.")] = False,
) -> None:
    """Methods side by side, over ratios and seeds, beside random, uniform and a small dense net."""
    from secateur.job.comparison_crew import share
    from secateur.job.contests import KEY, Comparison
    from secateur.job.method_comparison import compare_methods as compared
    from secateur.job.method_comparison import settled_comparison

    document = read(recipe)
    if KEY not in document:
        raise InputError(
            f"{recipe} has no section 'compare'; name criteria, ratios and seeds there"
        )
    if seeds is not None:
        document[KEY] = {**(document[KEY] or {}), "seeds": seeds}
    comparison = settled_comparison(Comparison.of(document, recipe, output))
    if part:
        number, _, of = part.partition("/")
        compared(comparison, part=(int(number), int(of)))
        return
    with talking(as_json, "the same command goes on where it stopped") as talk:
        if workers > 1:
            found = share(comparison, recipe, seeds, workers, talk)
        else:
            found = compared(comparison, talk)
    if markdown is not None:
        _write_markdown(found, markdown)
    if as_json:
        answer(found)
        return
    _print(found)
    print(f"report: {output}/methods.html")


def _write_markdown(document: dict[str, Any], path: Path) -> None:
    from secateur.reports.methods import as_markdown, curves

    path.parent.mkdir(parents=True, exist_ok=True)
    picture = path.with_suffix(".svg")
    drawn = str(curves(document)).replace(
        "<svg ",
        '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12" ',
        1,
    )
    picture.write_text(f"{drawn}\n", encoding="utf-8")
    text = as_markdown(document, picture.name)
    path.write_text(f"# Methods side by side\n\n{text}", encoding="utf-8")


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from secateur.reports.methods import errors, table

    header, rows = table(document)
    shown = Table(title=f"{document['model']}, test {document['metric']}", title_justify="left")
    for number, name in enumerate(header):
        shown.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    console = Console()
    console.print(shown)
    for text in errors(document):
        console.print(text, markup=False, highlight=False)

"""``secateur criteria``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from secateur.cli import command
from secateur.cli._talking import answer


@command("criteria")
def criteria(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """What a unit or a single weight is worth: each criterion with one line, and what it needs."""
    rows = [_row(name, about) for name, about in _names()]
    if as_json:
        answer({"criteria": rows})
        return
    width = max(len(row["name"]) for row in rows)
    wide = max(len(row["data"]) for row in rows)
    for row in rows:
        both = "units and weights" if row["elements"] else "units"
        print(f"{row['name']:{width}}  {row['data']:{wide}}  {both:17}  {row['about']}")


def _names() -> list[tuple[str, str]]:
    from secateur.criteria import CRITERIA

    return CRITERIA.describe()


def _row(name: str, about: str) -> dict[str, Any]:
    from secateur.criteria import CRITERIA
    from secateur.protocols import FROM_INPUTS, LABELLED

    kind = CRITERIA.get(name)
    judge = kind()
    needs = judge.needs
    data = "labels" if needs & LABELLED else "inputs" if needs & FROM_INPUTS else "nothing"
    data = "a training" if "movement" in needs else data
    return {
        "name": name, "about": about, "data": data, "needs": sorted(needs),
        "elements": hasattr(judge, "elements"), "reduction": getattr(judge, "reduction", None),
        "normalise": "none" if "losses" in needs else getattr(judge, "normalise", None),
    }  # fmt: skip

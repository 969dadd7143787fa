"""``secateur schedules``."""

from __future__ import annotations

from typing import Annotated

import typer

from secateur.cli import command
from secateur.cli._listing import listed


@command("schedules")
def schedules(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """How the removed share rises, and methods that prune during a training: one line each."""
    from secateur.during import DURING
    from secateur.schedules import SCHEDULES

    if as_json:
        listed_both(SCHEDULES.describe(), DURING.describe())
        return
    listed(SCHEDULES, "schedules", False)
    print("\nduring a training:")
    listed(DURING, "during", False)


def listed_both(schedules: list[tuple[str, str]], during: list[tuple[str, str]]) -> None:
    """One JSON object with the two lists."""
    from secateur.cli._talking import answer

    answer(
        {
            key: [{"name": name, "about": about} for name, about in rows]
            for key, rows in (("schedules", schedules), ("during", during))
        }
    )

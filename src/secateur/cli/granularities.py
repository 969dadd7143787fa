"""``secateur granularities``."""

from __future__ import annotations

from typing import Annotated

import typer

from secateur.cli import command
from secateur.cli._listing import listed


@command("granularities")
def granularities(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Which elements of a weight leave together: one line each."""
    from secateur.granularities import GRANULARITIES

    listed(GRANULARITIES, "granularities", as_json)

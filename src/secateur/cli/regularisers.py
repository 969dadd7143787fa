"""``secateur regularisers``."""

from __future__ import annotations

from typing import Annotated

import typer

from secateur.cli import command
from secateur.cli._listing import listed


@command("regularisers")
def regularisers(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """What can be added to a training: penalties, constraints, freezing: one line each."""
    from secateur.regularisers import REGULARISERS

    listed(REGULARISERS, "regularisers", as_json)

"""``secateur policies``."""

from __future__ import annotations

from typing import Annotated

import typer

from secateur.cli import command
from secateur.cli._listing import listed


@command("policies")
def policies(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """How a cut is spread over groups, or where its threshold lies: one line each."""
    from secateur.policies import POLICIES

    listed(POLICIES, "policies", as_json)

"""``secateur serve-check``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from secateur.cli import command
from secateur.cli._talking import answer


@command("serve-check")
def serve_check(
    folder: Annotated[Path, typer.Argument(help="Folder of exports, or of a run.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Load each export in a fresh process with its runtime alone, run it, and compare."""
    from secateur.exporters._serving import serve_check as check

    place = folder / "exports" if (folder / "exports").is_dir() else folder
    found = check(place)
    if as_json:
        rows = [{**vars(one), "path": str(one.path), "ok": one.ok} for one in found]
        answer({"folder": str(place), "ok": all(one.ok for one in found), "exports": rows})
    else:
        for one in found:
            if one.ok:
                print(
                    f"{one.path.name}: answers as expected, largest difference {one.max_abs:.1e} "
                    f"({', '.join(one.imported)} loaded)"
                )
            else:
                print(f"{one.path.name}: {one.error}")
    if not all(one.ok for one in found):
        print("not every export answers as expected", file=sys.stderr)
        raise typer.Exit(3)

"""The before/after table for the command line, with rich."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table
from rich.text import Text

from secateur.reports import numbers
from secateur.reports.reading import Document
from secateur.reports.sentences import verdict_clauses
from secateur.reports.table import before_after_rows

_STYLES = {True: "green", False: "red", None: ""}
_TONES = {"good": "green", "bad": "bold red", "plain": ""}


def before_after_table(metrics: Document) -> Table:
    """The rows as a rich table; names are text, so that no markup in them is read."""
    table = Table(title=Text(str(metrics.get("name") or "Run"), style="bold"), title_justify="left")
    table.add_column("")
    for name in ("Dense", "Pruned", "Change", "Relative"):
        table.add_column(name, justify="right")
    for row in before_after_rows(metrics):
        style = _STYLES[row.better]
        table.add_row(
            Text(row.label),
            _value(row.before),
            _value(row.after),
            Text(row.change, style=style),
            Text(row.relative, style=style),
        )
    return table


def verdict_text(metrics: Document) -> Text:
    """The verdict line with its parts coloured."""
    parts = [Text(clause.text, style=_TONES[clause.tone]) for clause in verdict_clauses(metrics)]
    return Text("; ").join(parts)


def print_table(metrics: Document, width: int | None = None) -> None:
    """Table and verdict on standard output; colours on a terminal alone."""
    console = Console(width=width)
    console.print(before_after_table(metrics))
    console.print(verdict_text(metrics), soft_wrap=True)


def as_text(metrics: Document, width: int = 100) -> str:
    """Table and verdict as plain text, ``width`` columns wide."""
    page = io.StringIO()
    console = Console(file=page, width=width, color_system=None)
    console.print(before_after_table(metrics))
    console.print(verdict_text(metrics))
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


def _value(text: str) -> Text:
    return Text(text, style="dim" if text == numbers.NOT_MEASURED else "")

"""The snippet that a result shows in a notebook: plain HTML, no script, no outside style."""

from __future__ import annotations

from secateur.reports import numbers
from secateur.reports.markup import Markup, tag
from secateur.reports.reading import Document
from secateur.reports.sentences import verdict_line
from secateur.reports.table import before_after_rows

# Colours that hold on white and on the dark of a notebook; both are colour-blind safe.
_COLOURS = {True: "#2a9d78", False: "#d9601a", None: "inherit"}
_CELL = "text-align:right;padding:2px 12px;white-space:nowrap"


def snippet(metrics: Document) -> str:
    """What ``_repr_html_`` returns: the verdict line and the before/after table."""
    cell, first = {"style": _CELL}, {"style": "text-align:left;padding:2px 12px", "scope": "row"}
    heads = ("", "Dense", "Pruned", "Change", "Relative")
    head = tag("tr", None, *(tag("th", cell | {"scope": "col"}, text) for text in heads))
    body: list[Markup] = []
    for row in before_after_rows(metrics):
        style = f"{_CELL};color:{_COLOURS[row.better]}"
        changes = ("", "") if row.change == numbers.NO_CHANGE else (row.change, row.relative)
        cells = [tag("td", cell, row.before), tag("td", cell, row.after)]
        cells += [tag("td", {"style": style}, text) for text in changes]
        body.append(tag("tr", None, tag("th", first, row.label), *cells))
    table = tag("table", None, tag("thead", None, head), tag("tbody", None, *body))
    title = tag("strong", None, metrics.get("name") or "Run")
    line = tag("p", {"style": "max-width:60em"}, title, ": ", verdict_line(metrics), ".")
    return str(tag("div", {"class": "secateur-result"}, line, table))

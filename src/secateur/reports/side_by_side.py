"""What pages of comparisons share: the page around them, and tables of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secateur.reports.html import asset
from secateur.reports.markup import Markup, inline_json, tag


def page(title: str, parts: Sequence[Markup], name: str, document: Mapping[str, Any]) -> str:
    """A whole page without a network; the document is in it, under an id."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = tag(
        "head", None, tag("meta", {"charset": "utf-8"}),
        tag("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("title", None, f"{title} – Secateur"), tag("link", {"rel": "icon", "href": "data:,"}),
        tag("style", None, Markup(asset("report.css"))),
    )  # fmt: skip
    data = tag("script", {"type": "application/json", "id": name}, inline_json(document))
    top = tag("header", None, tag("h1", None, title))
    body = tag("body", None, top, tag("main", None, *parts), data)
    return f"<!doctype html>\n{tag('html', {'lang': 'en'}, head, body)}\n"


def numbers_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """A table whose first column has names and whose others stand to the right."""
    head = tag("thead", None, tag("tr", None, *(tag("th", {"scope": "col"}, h) for h in header)))
    lines = []
    for name, *cells in rows:
        found = [tag("td", {"class": "n"}, cell) for cell in cells]
        lines.append(tag("tr", None, tag("th", {"scope": "row"}, name), *found))
    return tag("div", {"class": "scroll"}, tag("table", None, head, tag("tbody", None, *lines)))

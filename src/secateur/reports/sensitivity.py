"""What each group alone costs a model, on one page."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from secateur.reports import numbers
from secateur.reports.html import asset
from secateur.reports.markup import Markup, join, tag
from secateur.reports.plotting import Scale, drawing, line, rect
from secateur.reports.sections import grid, scrolled

TOP = 2.0  # the curves end above so many times the middle of the largest rises of all groups


def write_page(document: dict[str, Any], path: Path) -> Path:
    """Write the page of a sensitivity document, as ``secateur sensitivity --json`` prints it."""
    path.write_text(page(document), encoding="utf-8")
    return path


def page(document: dict[str, Any]) -> str:
    """The page, in one file without scripts."""
    metric, dense = document["metric"], document["dense"]
    title = f"Sensitivity of {document['model']}"
    solved = (
        "layers that read it solved anew" if document["compensated"] else "weights as they were"
    )
    about = (
        f"One group at a time loses units, by the criterion {document['criterion']}, with the "
        f"{solved} and batch norms recalibrated; measured on the validation split, where the dense "
        f"model has {metric} {dense[metric]:.4g} and loss {dense['loss']:.4g}. The first group is "
        "the one whose FLOPs cost least loss. The curve is the loss from all units on the left to "
        "none on the right, on one scale for all groups."
    )
    head = join([
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("title", None, title),
        tag("link", {"rel": "icon", "href": "data:,"}),
        tag("style", None, Markup(asset("report.css"))),
    ])  # fmt: skip
    top = tag("header", None, tag("h1", None, title), tag("p", None, about))
    body = tag("body", None, top, tag("main", None, tag("section", None, _table(document))))
    whole = tag("html", {"lang": "en"}, tag("head", None, head), body)
    return f"<!doctype html>\n{whole}\n"


def _table(document: dict[str, Any]) -> Markup:
    metric, dense = document["metric"], document["dense"]
    rises = sorted(max(p["loss"] for p in g["points"]) - dense["loss"] for g in document["groups"])
    top = dense["loss"] + TOP * max(rises[len(rises) // 2], 1e-9)
    rows: list[list[object]] = []
    for group in document["groups"]:
        for place, point in enumerate(group["points"]):
            first = not place
            rows.append([
                tag("code", None, group["group"]) if first else "",
                f"{group['units']} → {group['units'] - point['removed']}",
                numbers.plain(point[metric]),
                numbers.plain(point["loss"]),
                numbers.percent(point["flops"]),
                _curve(group, dense["loss"], top) if first else "",
            ])  # fmt: skip
    heads = ["Group", "Units", metric, "Loss", "FLOPs left", "Loss by units that leave"]
    return scrolled(grid("Sensitivity of all groups", heads, rows, "broad"), "Sensitivity")


def _curve(group: dict[str, Any], low: float, top: float) -> Markup:
    width, height, edge = 180, 36, 3
    x = Scale(0, group["units"], edge, width - edge)
    y = Scale(low, top, height - edge, edge)
    points = [(0, low), *((p["removed"], min(max(p["loss"], low), top)) for p in group["points"])]
    shapes = [line(x(a), y(p), x(b), y(q), "axis") for (a, p), (b, q) in pairwise(points)]
    shapes += [rect(x(a) - 2, y(p) - 2, 4, 4, "k1") for a, p in points]
    name = f"Loss of {group['group']} at {len(points) - 1} levels"
    return drawing(width, height, "spark", name, *shapes)

"""The error of a model over how much of it left, on one page."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from secateur.reports import numbers
from secateur.reports.html import asset
from secateur.reports.markup import Markup, join, tag
from secateur.reports.plotting import Scale, drawing, label, line, rect, ticks
from secateur.reports.sections import grid, scrolled

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 720, 270, 72, 12, 40, 28


def write_page(document: dict[str, Any], path: Path) -> Path:
    """Write the page of a document of ``secateur largest-ratio --json``."""
    path.write_text(page(document), encoding="utf-8")
    return path


def page(document: dict[str, Any]) -> str:
    """The page, in one file without scripts."""
    title = f"How much of {document['model']} can leave"
    name = _name(document)
    about = (
        f"Each point is the recipe carried out with that ratio of {document['knob']}, measured on "
        f"{document['samples']} validation samples beside the dense model's answers to the same; "
        f"the bar ends at what the {name} may be at most, with 95 % confidence. The lower line is "
        f"the dense model's {name}, the upper one the margin."
    )
    head = join([
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("title", None, title),
        tag("link", {"rel": "icon", "href": "data:,"}),
        tag("style", None, Markup(asset("report.css"))),
    ])  # fmt: skip
    top = tag("header", None, tag("h1", None, title), tag("p", None, document["words"]))
    parts = [tag("p", None, about), tag("figure", None, _curve(document)), _table(document)]
    body = tag("body", None, top, tag("main", None, tag("section", None, *parts)))
    whole = tag("html", {"lang": "en"}, tag("head", None, head), body)
    return f"<!doctype html>\n{whole}\n"


def _name(document: dict[str, Any]) -> str:
    """What is compared; a loss as a share of the dense model's."""
    return document.get("measure", "error")


def _curve(document: dict[str, Any]) -> Markup:
    dense, margin = document["dense"]["error"], document["margin"]
    points = [p for p in document["points"] if "unreachable" not in p]
    ends = [dense + point["comparison"]["upper"] for point in points]
    within = [end for end in ends if end <= dense + 6 * max(margin, 0.002)]
    high = max([dense + 2 * max(margin, 0.002), *within]) * 1.05
    x = Scale(0, 1, LEFT, WIDTH - RIGHT)
    y = Scale(max(0.0, dense - margin), high, HEIGHT - BOTTOM, TOP)
    shapes = [label((LEFT + WIDTH) / 2, HEIGHT - 6, f"ratio of {document['knob']} that left"),
              label(12, 12, _name(document), "start")]  # fmt: skip
    shapes += [label(x(at), HEIGHT - BOTTOM + 18, f"{at:g}") for at in ticks(0, 1, 10)]
    shapes += [label(LEFT - 6, y(at) + 4, numbers.percent(at), "end")
               for at in ticks(y.low, high, 5)]  # fmt: skip
    shapes += [line(x(0), y(at), x(1), y(at), "axis") for at in (dense, dense + margin)]

    def shown(value: float) -> float:
        return y(min(value, high))

    known = {p["ratio"]: fit for p, fit in zip(document["points"], document["curve"], strict=True)}
    curve = [(0.0, dense), *((p["ratio"], known[p["ratio"]]) for p in points)]
    shapes += [line(x(a), shown(p), x(b), shown(q), "axis") for (a, p), (b, q) in pairwise(curve)]
    for point in points:
        at, error = x(point["ratio"]), point["comparison"]["error"]
        css = {"largest": "k3", "under-pruned": "k1", "undecided": "k2"}.get(point["verdict"], "k4")
        shapes.append(
            line(at, shown(error), at, shown(dense + point["comparison"]["upper"]), "axis")
        )
        shapes.append(rect(at - 4, shown(error) - 4, 8, 8, css))
    return drawing(WIDTH, HEIGHT, "chart", f"Error at {len(points)} ratios. Table below.", *shapes)


def _table(document: dict[str, Any]) -> Markup:
    dense = document["dense"]
    rows: list[list[object]] = [["0", numbers.percent(dense["error"]), "", "", "", "dense"]]
    for point in document["points"]:
        found = point["comparison"]
        if "unreachable" in point:
            rows.append([f"{point['ratio']:g}", "", "", "", "", "out of reach"])
            continue
        rows.append([
            f"{point['ratio']:g}",
            numbers.percent(found["error"]),
            f"{100 * found['rise']:+.2f}",
            f"{100 * found['upper']:+.2f}",
            f"{found['worse']} / {found['better']}",
            point["verdict"],
        ])  # fmt: skip
    heads = ["Ratio", "Error", "Rise, points", "At most", "Newly wrong / right", ""]
    if _name(document) == "loss":
        heads = ["Ratio", "Loss, of dense", "Rise, %", "At most", "Worse / better samples", ""]
    return scrolled(grid("Every ratio that was measured", heads, rows, "broad"), "Ratios")

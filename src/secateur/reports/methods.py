"""Methods side by side: curves over the ratios with bands of confidence, and tables, as a page
without a network or as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from secateur.reports.markup import Markup, tag
from secateur.reports.plotting import Scale, drawing, label, ticks
from secateur.reports.side_by_side import numbers_table, page

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 380, 60, 176, 14, 44
COLOURS = (
    "#1b6e53", "#ea580c", "#2563eb", "#9333ea", "#ca8a04", "#0891b2", "#db2777", "#65a30d",
    "#475569", "#dc2626", "#818cf8", "#14b8a6", "#78350f", "#94a3b8", "#1e3a8a", "#f472b6",
    "#4d7c0f",
)  # fmt: skip
# Two-sided 95 % of Student's t by degrees of freedom; 1.96 beyond.
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Mean:
    """A mean over seeds and half the width of its 95 % interval (Student's t); NaN of one seed."""

    value: float
    half: float
    count: int

    @staticmethod
    def of(values: Sequence[float]) -> Mean:
        """Of one value at least."""
        count = len(values)
        if count == 1:
            return Mean(values[0], math.nan, 1)
        t = T95[count - 2] if count - 2 < len(T95) else 1.96
        return Mean(fmean(values), t * stdev(values) / math.sqrt(count), count)


def means(
    document: Document, contestant: Mapping[str, Any], key: str = "test"
) -> dict[float, Mean]:
    """Ratio -> mean over the seeds, of ratios with a value at least."""
    found = {}
    for ratio in document["ratios"]:
        values = [c["test"] for c in contestant["cells"] if c["ratio"] == ratio and "test" in c]
        if values:
            found[ratio] = Mean.of(values)
    return found


def beside(document: Document, contestant: Mapping[str, Any], other: str) -> dict[float, Mean]:
    """Ratio -> mean of how far it is ahead of another contestant, with the same seeds."""
    sign = 1 if document["higher_is_better"] else -1
    control = next((c for c in document["contestants"] if c["name"] == other), {"cells": []})
    theirs = {(c["ratio"], c["seed"]): c["test"] for c in control["cells"] if "test" in c}
    found: dict[float, Mean] = {}
    for ratio in document["ratios"]:
        pairs = [
            sign * (c["test"] - theirs[ratio, c["seed"]])
            for c in contestant["cells"]
            if c["ratio"] == ratio and "test" in c and (ratio, c["seed"]) in theirs
        ]
        if pairs:
            found[ratio] = Mean.of(pairs)
    return found


def ordered(document: Document) -> list[Mapping[str, Any]]:
    """Contestants that could do all ratios, the best mean over them first; then the others."""
    sign = -1 if document["higher_is_better"] else 1

    def place(contestant: Mapping[str, Any]) -> tuple[bool, float]:
        found = means(document, contestant)
        whole = len(found) == len(document["ratios"])
        return not whole, sign * fmean(m.value for m in found.values()) if found else math.inf

    return sorted(document["contestants"], key=place)


def table(document: Document) -> tuple[list[str], list[list[str]]]:
    """Header and rows: test metric at each ratio, mean ± half of the interval."""
    header = ["method", *(f"{ratio:.0%}" for ratio in document["ratios"]), "seconds a run"]
    rows = []
    for contestant in ordered(document):
        found = means(document, contestant)
        seconds = [c["seconds"] for c in contestant["cells"] if "seconds" in c]
        rows.append([
            contestant["name"] + (" (control)" if contestant["control"] else ""),
            *(_written(document, found.get(ratio)) for ratio in document["ratios"]),
            f"{fmean(seconds):.0f}" if seconds else "–",
        ])  # fmt: skip
    return header, rows


def differences(document: Document, other: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows: how far each is ahead of a control, in pairs of equal seeds."""
    header = ["method", *(f"{ratio:.0%}" for ratio in document["ratios"])]
    rows = []
    for contestant in ordered(document):
        if contestant["name"] == other:
            continue
        found = beside(document, contestant, other)
        cells = [_written(document, found.get(r), signed=True) for r in document["ratios"]]
        rows.append([contestant["name"], *cells])
    return header, rows


def _of_pairs(document: Document) -> str:
    if document["is_share"] and document["higher_is_better"]:
        return "Points, in pairs of equal seeds."
    unit = "Points" if document["is_share"] else f"In {document['metric']}"
    less = "" if document["higher_is_better"] else ", as less is better"
    return f"{unit}, in pairs of equal seeds; above 0 where it is better{less}."


def errors(document: Document) -> list[str]:
    """What contestants could not do, one line each."""
    found = []
    for contestant in document["contestants"]:
        told = sorted({c["error"] for c in contestant["cells"] if "error" in c})
        found += [f"{contestant['name']}: {text}" for text in told]
    return found


def _written(document: Document, mean: Mean | None, signed: bool = False) -> str:
    if mean is None:
        return "–"
    scale, digits = 100 if document["is_share"] else 1, _decimals(document)
    value = f"{scale * mean.value:{'+' if signed else ''}.{digits}f}"
    return value if math.isnan(mean.half) else f"{value} ± {scale * mean.half:.{digits}f}"


def _decimals(document: Document) -> int:
    """Two of a share in percent; of any other metric as many as show four digits of the least."""
    if document["is_share"]:
        return 2
    tests = [abs(c["test"]) for one in document["contestants"] for c in one["cells"] if "test" in c]
    least = min((value for value in tests if value and math.isfinite(value)), default=1.0)
    return min(max(2, 3 - math.floor(math.log10(least))), 9)


def curves(document: Document) -> Markup:
    """A picture: test metric over what is left of the budget, means and bands."""
    shown = [(c, means(document, c)) for c in ordered(document)]
    shown = [(c, found) for c, found in shown if found]
    scale = 100 if document["is_share"] else 1
    dense = [scale * d["test"] for d in document["dense"]]
    values = [scale * m.value for _, found in shown for m in found.values()] + dense
    low, high = min(values), max(values)
    air = 0.05 * (high - low) or 1.0
    ratios = document["ratios"]
    first, last = max(0.0, min(ratios) - 0.05), min(1.0, max(ratios) + 0.05)
    x = Scale(first, last, LEFT, WIDTH - RIGHT)
    y = Scale(low - air, high + air, HEIGHT - BOTTOM, TOP)
    names = [c["name"] for c, _ in shown]  # the best ones get the strongest colours
    shapes = [_line(LEFT, y(v), WIDTH - RIGHT, y(v), "#cbd5e1") for v in ticks(low, high, 6)]
    shapes += [label(LEFT - 8, y(v) + 4, f"{v:g}", "end") for v in ticks(low, high, 6)]
    shapes += [label(x(v), HEIGHT - BOTTOM + 18, f"{v:.0%}") for v in ticks(first, last, 6)]
    unit = " in %" if document["is_share"] else ""
    shapes.append(label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, f"{document['budget']} left"))
    shapes.append(label(LEFT, TOP - 2, f"{document['split']} {document['metric']}{unit}", "start"))
    if dense:
        shapes.append(_line(LEFT, y(fmean(dense)), WIDTH - RIGHT, y(fmean(dense)), "#0f172a", 1))
        shapes.append(label(WIDTH - RIGHT - 4, y(fmean(dense)) - 4, "dense", "end"))
    for number, (contestant, found) in enumerate(reversed(shown)):
        colour = COLOURS[names.index(contestant["name"]) % len(COLOURS)]
        shapes += _curve(contestant, found, colour, x, y, scale)
        row = len(shown) - 1 - number
        place, at = TOP + 12 + 19 * row, WIDTH - RIGHT + 10
        shapes.append(_line(at, place, at + 16, place, colour, 3, contestant["control"]))
        shapes.append(label(at + 22, place + 4, contestant["name"], "start"))
    name = f"{document['model']}: {document['metric']} by method"
    return drawing(WIDTH, max(HEIGHT, TOP + 20 + 19 * len(shown)), "chart", name, *shapes)


def _curve(
    contestant: Mapping[str, Any],
    found: Mapping[float, Mean],
    colour: str,
    x: Scale,
    y: Scale,
    scale: float,
) -> list[Markup]:
    def at(ratio: float, value: float) -> str:
        return f"{x(ratio):g},{min(max(y(scale * value), TOP), HEIGHT - BOTTOM):g}"

    rows = sorted(found.items())
    line = " ".join(at(ratio, mean.value) for ratio, mean in rows)
    shapes = []
    if all(not math.isnan(mean.half) for _, mean in rows):
        upper = [at(ratio, mean.value + mean.half) for ratio, mean in rows]
        lower = [at(ratio, mean.value - mean.half) for ratio, mean in reversed(rows)]
        band = {"points": " ".join(upper + lower), "fill": colour, "fill-opacity": "0.06"}
        shapes.append(tag("polygon", band))
    dashes = {"stroke-dasharray": "5 3"} if contestant["control"] else {}
    shapes.append(tag("polyline", {
        "points": line, "fill": "none", "stroke": colour, "stroke-width": "1.8", **dashes,
    }))  # fmt: skip
    shapes += [
        tag("circle", {"cx": point.split(",")[0], "cy": point.split(",")[1], "r": "2.4",
                       "fill": colour})
        for point in line.split()
    ]  # fmt: skip
    return shapes


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1, dashed: bool = False
) -> Markup:
    ends = {"x1": f"{x1:g}", "y1": f"{y1:g}", "x2": f"{x2:g}", "y2": f"{y2:g}"}
    dashes = {"stroke-dasharray": "5 3"} if dashed else {}
    return tag("line", ends | {"stroke": colour, "stroke-width": f"{width:g}"} | dashes)


def words(document: Document) -> list[str]:
    """What was done, in sentences."""
    dense = [d["test"] for d in document["dense"]]
    shown = (
        "Choices were made on the validation split; the test split was measured once at the end of "
        "each run, and is what is shown."
        if document["split"] == "test"
        else "There is no test split: the validation split, on which choices were made, is shown, "
        "and flatters all."
    )
    scale, unit = (100, " %") if document["is_share"] else (1, "")
    told = [
        f"{document['model']}: every method at {len(document['ratios'])} ratios of "
        f"{document['budget']}, {document['seeds']} seed(s), with the same dense models, data and "
        f"trainings. {shown} Intervals are 95 % (Student's t over seeds): "
        "with few seeds they are wide, and most neighbours in the table are not told apart. "
        "Seconds are those of the wall, beside whatever else ran.",
    ]
    if document["missing"]:
        told.append(
            f"NOT COMPLETE: {document['missing']} cells are still to be measured; the same command "
            "goes on."
        )
    if dense:
        shown = f"{scale * fmean(dense):.{_decimals(document)}f}{unit}"
        told.append(f"The dense model has {shown} {document['metric']}.")
    return told


def as_markdown(document: Document, picture: str = "") -> str:
    """The tables in Markdown. picture: address of the curves, none where it is empty."""
    parts = [*words(document), f"![{document['metric']} by method]({picture})" if picture else ""]
    parts.append(_markdown(*table(document)))
    for other in ("random", "small dense net"):
        if any(c["name"] == other and c["cells"] for c in document["contestants"]):
            parts += [f"## Ahead of {other}", _of_pairs(document)]
            parts.append(_markdown(*differences(document, other)))
    missed = errors(document)
    if missed:
        parts += ["## What could not be done", "\n".join(f"- {text}" for text in missed)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, [":---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def methods_page(document: Document) -> str:
    """The page of a ``secateur.method-comparison/1`` document."""
    parts = [tag("p", None, text) for text in words(document)]
    if any(means(document, c) for c in document["contestants"]):
        parts += [tag("figure", None, curves(document)), numbers_table(*table(document))]
    for other in ("random", "small dense net"):
        if any(c["name"] == other and c["cells"] for c in document["contestants"]):
            parts += [
                tag("h2", None, f"Ahead of {other}"),
                tag("p", None, _of_pairs(document)),
                numbers_table(*differences(document, other)),
            ]
    missed = errors(document)
    if missed:
        items = [tag("li", None, text) for text in missed]
        parts += [tag("h2", None, "What could not be done"), tag("ul", None, *items)]
    return page("Methods side by side", [tag("section", None, *parts)], "methods", document)

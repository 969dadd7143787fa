"""Searches side by side: curves of the best so far, and a table, as one page without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secateur.reports.markup import Markup, tag
from secateur.reports.plotting import Scale, drawing, label, ticks
from secateur.reports.side_by_side import numbers_table, page

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 320, 64, 132, 12, 40
FROM = 3  # the first evaluations would hide the rest: the scale is that of the later ones
COLOURS = (
    "#1b6e53", "#c2410c", "#2563eb", "#9333ea", "#b45309", "#0891b2", "#be185d", "#4d7c0f",
    "#475569", "#dc2626", "#7c3aed", "#0d9488", "#a16207", "#64748b", "#1e3a8a", "#831843",
)  # fmt: skip

Subject = Mapping[str, Any]


def curves(subject: Subject, seeded: bool) -> Markup:
    """A picture of the best so far of all algorithms: means, and bands from least to largest."""
    shown = [a for a in subject["algorithms"] if a["seeded"] == seeded]
    count = int(subject["trials"])
    later = [v for a in shown for v in (a["mean"][min(FROM, count) - 1 :] or a["mean"])]
    later += [float(subject["best"])] if subject.get("best") is not None else []
    low, high = min(later), max(later)
    air = 0.06 * (high - low) or abs(high) * 0.06 or 1.0
    x = Scale(1, max(count, 2), LEFT, WIDTH - RIGHT)
    y = Scale(low - air, high + air, HEIGHT - BOTTOM, TOP)
    names = sorted({a["name"] for a in subject["algorithms"]})
    shapes = [_line(LEFT, y(v), WIDTH - RIGHT, y(v), "#cbd5e1") for v in ticks(low, high, 5)]
    shapes += [label(LEFT - 8, y(v) + 4, f"{v:.3g}", "end") for v in ticks(low, high, 5)]
    shapes += [label(x(n), HEIGHT - BOTTOM + 18, f"{n:g}") for n in ticks(1, count, 6) if n >= 1]
    middle = (LEFT + WIDTH - RIGHT) / 2
    shapes.append(label(middle, HEIGHT - 6, "evaluations"))
    for algorithm in sorted(shown, key=lambda a: a["name"] == "auto"):  # on top
        colour = COLOURS[names.index(algorithm["name"]) % len(COLOURS)]
        shapes += _curve(algorithm, colour, x, y, count)
    shapes += _legend(shown, names)
    begun = "with seeds" if seeded else "without seeds"
    return drawing(WIDTH, HEIGHT, "chart", f"{subject['name']}, {begun}: best so far", *shapes)


def _curve(algorithm: Mapping[str, Any], colour: str, x: Scale, y: Scale, count: int) -> list:
    def points(values: Sequence[float], order: Sequence[int]) -> str:
        return " ".join(
            f"{x(n + 1):g},{min(max(y(values[n]), TOP), HEIGHT - BOTTOM):g}" for n in order
        )

    forth = range(count)
    band = points(algorithm["least"], forth) + " " + points(algorithm["largest"], forth[::-1])
    width = "2.6" if algorithm["name"] == "auto" else "1.3"
    return [
        tag("polygon", {"points": band, "fill": colour, "fill-opacity": "0.07"}),
        tag("polyline", {
            "points": points(algorithm["mean"], forth), "fill": "none", "stroke": colour,
            "stroke-width": width,
        }),
    ]  # fmt: skip


def _legend(shown: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Markup]:
    shapes = []
    for row, algorithm in enumerate(sorted(shown, key=lambda a: a["mean"][-1])):
        place, at = TOP + 10 + 17 * row, WIDTH - RIGHT + 12
        colour = COLOURS[names.index(algorithm["name"]) % len(COLOURS)]
        shapes.append(_line(at, place, at + 16, place, colour, 3))
        shapes.append(label(at + 22, place + 4, algorithm["name"], "start"))
    return shapes


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> Markup:
    ends = {"x1": f"{x1:g}", "y1": f"{y1:g}", "x2": f"{x2:g}", "y2": f"{y2:g}"}
    return tag("line", ends | {"stroke": colour, "stroke-width": f"{width:g}"})


def rows(subject: Subject, seeded: bool) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table: best so far at some counts, the best algorithm first."""
    shown = [a for a in subject["algorithms"] if a["seeded"] == seeded]
    counts = list(shown[0]["at"]) if shown else []

    def cell(found: Mapping[str, float], draws: int) -> str:
        spread = f" ± {found['deviation']:.2g}" if draws > 1 else ""
        return f"{found['mean']:.4g}{spread}"

    ordered = sorted(shown, key=lambda a: a["at"][counts[-1]]["mean"])
    body = [[a["name"], *(cell(a["at"][n], a["draws"]) for n in counts)] for a in ordered]
    return ["algorithm", *(f"after {n}" for n in counts)], body


def comparison_page(document: Mapping[str, Any]) -> str:
    """The page of a ``secateur.search-comparison/1`` document."""
    parts = []
    for number, subject in enumerate(document["subjects"]):
        known = [f"{key} {subject[key]:.4g}" for key in ("best", "uniform") if key in subject]
        inner = [tag("h2", {"id": f"subject-{number}"}, subject["name"])]
        inner += [tag("p", None, "Known: ", ", ".join(known), ".")] if known else []
        for seeded in sorted({a["seeded"] for a in subject["algorithms"]}):
            begun = "With seeds" if seeded else "Without seeds"
            header, body = rows(subject, seeded)
            inner += [tag("h3", None, begun), curves(subject, seeded), numbers_table(header, body)]
        parts.append(tag("section", {"aria-labelledby": f"subject-{number}"}, *inner))
    lead = (
        "The least value so far after each evaluation: means over the draws, bands from the least "
        "to the largest. Less is better."
    )
    return page("Searches side by side", [tag("p", None, lead), *parts], "comparison", document)

"""How widths were chosen: trials, the loss of every level, other budgets, layers solved anew."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from secateur.reports import numbers
from secateur.reports.markup import Markup, join, tag
from secateur.reports.plotting import Scale, drawing, label, line, rect, ticks
from secateur.reports.reading import Document, listing, mapping
from secateur.reports.sections import grid, muted, scrolled

MOST = 0.99  # of the energy that a copy carries
SHOWN = 12  # layers in the table of what compensation brought; all groups have a curve


def choice_section(metrics: Document) -> Markup:
    """The section; a sentence where nothing was recorded."""
    found = mapping(metrics, "choice")
    parts = [
        *_trials(listing(found, "trials"), found.get("taken")),
        *_turned(listing(found, "turned")),
        *_curves(listing(found, "curves"), str(found.get("criterion") or "")),
        *_front(listing(found, "front"), found.get("left")),
        *_solved(listing(found, "solved")),
    ]
    return join(parts) if parts else muted("How widths were chosen was not recorded.")


def _trials(trials: Sequence[Any], taken: Any) -> list[Markup]:
    if not trials:
        return []
    rows: list[list[object]] = []
    for number, trial in enumerate(trials):
        name: object = trial.get("name", "")
        if number == taken:
            name = tag("b", None, f"{trial.get('name', '')}, taken")
        rows.append([str(number + 1), name, str(len(trial.get("branches") or [])),
                     _loss(trial.get("loss")), numbers.seconds(trial.get("seconds"))])  # fmt: skip
    text = (
        "Each row is a set of widths that keeps the budget. Its layers were solved anew on one "
        "half of the calibration samples, and its answers compared with those of the dense model "
        "on the other half. A later one is taken where it is better by more than chance."
    )
    return [
        tag("h3", None, "Trials"),
        tag("p", None, text),
        _table("Trials of widths", ["Trial", "Widths from", "Branches gone", "Loss", "Time"], rows),
    ]


def _turned(turned: Sequence[Any]) -> list[Markup]:
    if not turned:
        return []
    by_group: dict[str, list[list[float]]] = {}
    for one in turned:
        by_group.setdefault(str(one.get("group", "")), []).append(list(one.get("carried") or []))
    rows: list[list[object]] = [
        [tag("code", None, name), str(len(some)), str(max(map(len, some))),
         f"{min(map(_most, some))} to {max(map(_most, some))}"]
        for name, some in by_group.items()
    ]  # fmt: skip
    text = (
        "Nothing but linear maps touches these units, so that they may be mixed without changing "
        "what the network answers. They were, so that the last of them carry least."
    )
    heads = ["Group", "Copies", "Units", f"Units that carry {MOST:.0%}"]
    return [tag("h3", None, "What was turned first"), tag("p", None, text),
            _table("Turned groups", heads, rows)]  # fmt: skip


def _most(carried: Sequence[float]) -> int:
    """How many of the first carry nearly all of the energy."""
    energies = [value * value for value in carried]
    total, held = sum(energies), 0.0
    for count, energy in enumerate(energies):
        if held >= MOST * total:
            return count
        held += energy
    return len(energies)


def _curves(curves: Sequence[Any], criterion: str) -> list[Markup]:
    if not curves:
        return []
    highest = max((numbers.finite(c.get("loss")) or 0.0 for c in curves), default=0.0)
    rows: list[list[object]] = []
    for curve in curves:
        units, removed = int(curve.get("units", 0)), int(curve.get("removed", 0))
        rows.append([
            tag("code", None, str(curve.get("group", ""))), f"{units} → {units - removed}",
            _loss(curve.get("loss")), _spark(curve, highest),
        ])  # fmt: skip
    what = "expected loss" if criterion == "obs" else f"summed score ({criterion})"
    text = (
        f"The {what} of each group from all units on the left to none on the right; the dot is "
        "the width that was taken. All have the same scale, and are cut off above twice the "
        "largest loss that was taken."
    )
    heads = ["Group", "Units", "Loss there", "Loss by units that leave"]
    return [
        tag("h3", None, "Every level of every group"),
        tag("p", None, text),
        _table("Losses of the levels of all groups", heads, rows),
    ]


def _spark(curve: Any, highest: float) -> Markup:
    """A small curve, cut off above twice the loss of the dearest group."""
    width, height, edge = 180, 36, 3
    levels, losses = curve.get("levels") or [0], curve.get("losses") or [0.0]
    top = 2 * highest or max(losses) or 1.0
    x = Scale(0, max(levels[-1], 1), edge, width - edge)
    y = Scale(0, top, height - edge, edge)
    shapes = []
    points = list(zip(levels, losses, strict=True))
    for (a, p), (b, q) in pairwise(points):
        if p <= top:
            shapes.append(line(x(a), y(p), x(b), y(min(q, top)), "axis"))
    at, loss = int(curve.get("removed", 0)), numbers.finite(curve.get("loss")) or 0.0
    shapes.append(rect(x(at) - 3, y(min(loss, top)) - 3, 6, 6, "k2"))
    units = int(curve.get("units", 0))
    name = f"{at} of {units} units left, at a loss of {loss:.3g}"
    return drawing(width, height, "spark", name, *shapes)


def _front(points: Sequence[Any], taken: Any) -> list[Markup]:
    known = [(numbers.finite(p.get("left")), numbers.finite(p.get("loss"))) for p in points]
    pairs = [(a, b) for a, b in known if a is not None and b is not None]
    if len(pairs) < 2:
        return []
    charts = [
        tag("div", {"class": css}, _front_chart(pairs, numbers.finite(taken), width))
        for css, width in (("wide", 720), ("narrow", 350))
    ]
    rows: list[list[object]] = [[numbers.percent(a), _loss(b)] for a, b in pairs]
    text = (
        "What the same scores give for other budgets; "
        "the square is the budget of this run. The plans come from "
    )
    return [
        tag("h3", None, "Other budgets"),
        tag("p", None, text, tag("code", None, "secateur solve RUN --front"), "."),
        tag("figure", None, *charts),
        _table("Loss by what is left", ["Left", "Expected loss"], rows),
    ]


def _front_chart(pairs: list[tuple[float, float]], taken: float | None, width: int) -> Markup:
    height, left, bottom, top = 200, 64, 28, 10
    high = max(loss for _, loss in pairs)
    x, y = Scale(0, 1, left, width - 12), Scale(0, high or 1.0, height - bottom, top)
    shapes = [line(left, height - bottom, width - 12, height - bottom, "axis")]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        shapes.append(label(x(tick), height - 8, f"{tick:.0%}", css="tick"))
    for tick in ticks(0, high, 4):
        shapes.append(line(left, y(tick), width - 12, y(tick), "divider"))
        shapes.append(label(left - 6, y(tick) + 4, f"{tick:.3g}", "end", "tick"))
    ordered = sorted(pairs)
    for (a, p), (b, q) in pairwise(ordered):
        shapes.append(line(x(a), y(p), x(b), y(q), "axis"))
    for a, p in ordered:
        shapes.append(rect(x(a) - 2, y(p) - 2, 4, 4, "k1"))
    if taken is not None and ordered[0][0] <= taken <= ordered[-1][0]:
        shapes.append(rect(x(taken) - 4, y(_between(ordered, taken)) - 4, 8, 8, "k3"))
    name = f"Expected loss against what is left, {len(pairs)} budgets. Table below."
    return drawing(width, height, "chart", name, *shapes)


def _between(ordered: list[tuple[float, float]], at: float) -> float:
    """The height of the line through the points."""
    for (a, p), (b, q) in pairwise(ordered):
        if a <= at <= b:
            return p + (q - p) * ((at - a) / (b - a) if b > a else 0.0)
    return ordered[0][1]


def _solved(solved: Sequence[Any]) -> list[Markup]:
    if not solved:
        return []
    worst = sorted(solved, key=lambda one: -(numbers.finite(one.get("before")) or 0.0))[:SHOWN]
    rows: list[list[object]] = [
        [tag("code", None, str(one.get("layer", ""))), numbers.percent(one.get("before")),
         numbers.percent(one.get("after"))]
        for one in worst
    ]  # fmt: skip
    more = len(solved) - len(worst)
    text = (
        "Of the answer of each layer, the share that is wrong when its inputs have left: with the "
        "old weights, and with those that were solved by least squares."
    )
    if more:
        text += f" The {len(worst)} layers that lost most; {more} more were solved."
    heads = ["Layer", "Wrong before", "Wrong after"]
    return [tag("h3", None, "What compensation brought"), tag("p", None, text),
            _table("Errors of layers", heads, rows)]  # fmt: skip


def _table(name: str, heads: list[str], rows: list[list[object]]) -> Markup:
    return scrolled(grid(name, heads, rows), name)


def _loss(value: Any) -> str:
    found = numbers.finite(value)
    return "–" if found is None else f"{found:.3g}"

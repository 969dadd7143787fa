"""The story of a run over time: score, loss and FLOPs, with the phases shaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from secateur.reports import numbers
from secateur.reports.markup import Markup, join, tag
from secateur.reports.plotting import Scale, drawing, label, line, padded, rect, ticks
from secateur.reports.reading import Document, is_share, listing

# Kind of a step -> class of its shade, and the word in the legend.
PHASES = {
    "prune": ("p-prune", "prune"),
    "recalibrate": ("p-repair", "repair"),
    "compensate": ("p-repair", "repair"),
    "repair": ("p-repair", "repair"),
    "epoch": ("p-tune", "fine-tune"),
    "train": ("p-tune", "fine-tune"),
    "finetune": ("p-tune", "fine-tune"),
    "export": ("p-export", "export"),
}
_OTHER = ("p-other", "dense model, measuring")
# Seconds in a unit, the unit, and how long a run has to be for it.
_CLOCKS = ((3600.0, "h", 10800.0), (60.0, "min", 180.0), (1.0, "s", 1.0), (1e-3, "ms", 0.0))
_MARKED = 80  # more measured points than this are a line without dots


@dataclass(frozen=True)
class Panel:
    """One curve: (time in s, value, step) where measured."""

    title: str
    css: str
    points: list[tuple[float, float, str]]
    write: Callable[[float], str]
    stepped: bool = False
    dense: float | None = None


def timeline_section(metrics: Document) -> Markup:
    """Chart, legend and table of the steps; ``at`` is when a step was done, in s since the start.

    A stage may follow its own epochs: it is shaded where they are not.
    """
    steps = list(listing(metrics, "timeline"))
    if not steps:
        return tag("p", {"class": "muted"}, "No step was recorded.")
    panels = _panels(metrics, steps)
    seen = dict.fromkeys((css, word) for _, _, css, word in _spans(steps))
    keys = [tag("span", {"class": "key"}, tag("i", {"class": css}), word) for css, word in seen]
    figure = Markup()
    if panels and _end(steps) > 0:
        charts = [
            tag("div", {"class": css}, _chart(steps, panels, width))
            for css, width in (("wide", 1060), ("narrow", 350))
        ]
        caption = (
            "Time since the start. Each dot is a measurement at the end of a step; the dashed "
            "line is the score of the dense model."
        )
        figure = tag(
            "figure",
            {"class": "timeline"},
            tag("div", {"class": "legend"}, *keys),
            *charts,
            tag("figcaption", None, caption),
        )
    return join([figure, _table(metrics, steps)])


def _panels(metrics: Document, steps: list[Any]) -> list[Panel]:
    def measured(key: str) -> list[tuple[float, float, str]]:
        found = [
            (_at(step), value, str(step.get("step")))
            for step in steps
            if (value := numbers.finite(step.get(key))) is not None
        ]
        return sorted(found, key=lambda point: point[0])

    scores = measured("metric")
    share = is_share(metrics, *(value for _, value, _ in scores))
    name = str(metrics.get("metric") or "metric")
    first = next((step for step in steps if step.get("kind") == "dense"), {})
    dense = numbers.finite(first.get("metric"))
    write = numbers.percent if share else numbers.plain
    flops = measured("flops")
    panels = [
        Panel(name, "c-metric", scores, write, dense=dense),
        Panel("loss", "c-loss", measured("loss"), numbers.plain),
        Panel("FLOPs", "c-flops", flops, numbers.count, stepped=True),
    ]
    return [panel for panel in panels if panel.points]


def _chart(steps: list[Any], panels: list[Panel], width: int) -> Markup:
    left, right, strip, foot = 58, 12, 14, 34
    tall = [150 if panel.css == "c-metric" else 92 for panel in panels]
    height = strip + sum(tall) + foot
    across = Scale(0.0, _end(steps), left, width - right)
    shapes = []
    for start, stop, css, word in _spans(steps):
        x, wide = across(start), max(2.0, across(stop) - across(start))
        shade = rect(x, strip, wide, height - foot - strip, f"shade {css}")
        ribbon = rect(x, 0, wide, 7, f"ribbon {css}")
        title = tag("title", None, f"{word}, {numbers.seconds(stop - start)}")
        shapes.append(tag("g", None, title, shade, ribbon))
    top = float(strip)
    for panel, room in zip(panels, tall, strict=True):
        shapes += _curve(panel, across, top, top + room, width - right)
        top += room
    size, unit = next(clock for clock in _CLOCKS if _end(steps) >= clock[2])[:2]
    for moment in ticks(0.0, _end(steps) / size, 8 if width > 500 else 4):
        x = across(moment * size)
        shapes.append(line(x, top, x, top + 5, "axis"))
        shapes.append(label(x, top + 18, f"{moment:g} {unit}", css="tick"))
    shapes.append(line(left, top, width - right, top, "axis"))
    told = ", ".join(panel.title for panel in panels)
    name = f"{told} over {len(steps)} steps in {numbers.seconds(_end(steps))}. Table below."
    return drawing(width, int(height), "chart", name, *shapes)


def _curve(panel: Panel, across: Scale, top: float, bottom: float, right: float) -> list[Markup]:
    """One panel between two heights: title, grid, the dense level, the line, its dots."""
    values = [value for _, value, _ in panel.points]
    low, high = padded([0.0, *values] if panel.stepped else values)
    low = max(low, 0.0) if min(values) >= 0 else low
    upwards = Scale(low, high, bottom - 6, top + 20)
    shapes = [line(across.start, bottom, right, bottom, "grid")]
    values = ticks(low, high, 4 if bottom - top > 120 else 2)
    for value, text in zip(values, numbers.told_apart(values, panel.write), strict=True):
        y = upwards(value)
        shapes.append(line(across.start, y, right, y, "grid"))
        shapes.append(label(across.start - 6, y + 4, text, "end", "tick"))
    shapes.append(label(across.start + 4, top + 13, panel.title, "start", "panel"))
    if panel.dense is not None:
        y = upwards(panel.dense)
        shapes.append(line(across.start, y, right, y, f"dense {panel.css}"))
    places = [(across(moment), upwards(value)) for moment, value, _ in panel.points]
    path = f"M{places[0][0]:g} {places[0][1]:g}"
    for x, y in places[1:]:
        path += f"H{x:g}V{y:g}" if panel.stepped else f"L{x:g} {y:g}"
    if panel.stepped:
        path += f"H{right:g}"
    shapes.append(tag("path", {"d": path, "class": f"curve {panel.css}"}))
    if len(places) <= _MARKED and not panel.stepped:
        for (x, y), (_, value, step) in zip(places, panel.points, strict=True):
            title = tag("title", None, f"{step}: {panel.title} {panel.write(value)}")
            dot = {"cx": f"{x:g}", "cy": f"{y:g}", "r": "3.2", "class": f"dot {panel.css}"}
            shapes.append(tag("circle", dot, title))
    return shapes


def _spans(steps: list[Any]) -> list[tuple[float, float, str, str]]:
    """Phases as (start, stop, class, word); neighbours of one kind are one."""
    spans: list[tuple[float, float, str, str]] = []
    dense = next((i for i, step in enumerate(steps) if step.get("kind") == "dense"), -1)
    for position, step in enumerate(steps):
        # Epochs before the dense model is done are its own training, not fine-tuning.
        css, word = _OTHER if position <= dense else _phase(step)
        start, stop = max(0.0, _at(step) - _seconds(step)), _at(step)
        if spans:
            start = max(start, spans[-1][1])
        if stop <= start:
            continue
        if spans and spans[-1][2] == css and start - spans[-1][1] < 0.02 * _end(steps):
            start = spans.pop()[0]
        spans.append((start, stop, css, word))
    return spans


def _phase(step: Document) -> tuple[str, str]:
    return PHASES.get(str(step.get("kind")), _OTHER)


def _at(step: Document) -> float:
    return numbers.finite(step.get("at")) or 0.0


def _seconds(step: Document) -> float:
    return numbers.finite(step.get("seconds")) or 0.0


def _end(steps: list[Any]) -> float:
    return max(map(_at, steps))


def _table(metrics: Document, steps: list[Any]) -> Markup:
    name = str(metrics.get("metric") or "metric")
    share = is_share(metrics, *(step.get("metric") for step in steps))
    write = (lambda value: numbers.percent(value, 2)) if share else numbers.plain
    heads = ("Step", "Done at", "Took", name, "Loss", "FLOPs", "Parameters")
    rows = []
    for step in steps:
        css, word = _phase(step)
        mark = tag("i", {"class": f"swatch {css}", "title": word})
        texts = [
            numbers.seconds(step.get("at")),
            numbers.seconds(step.get("seconds")),
            _or_dash(step.get("metric"), write),
            _or_dash(step.get("loss"), numbers.plain),
            numbers.count(step.get("flops")),
            numbers.count(step.get("params")),
        ]
        first = tag("th", {"scope": "row"}, mark, step.get("step", ""))
        rows.append(tag("tr", None, first, *(tag("td", {"class": "n"}, text) for text in texts)))
    head = tag("tr", None, *(tag("th", {"scope": "col"}, text) for text in heads))
    caption = tag("caption", {"class": "hidden"}, "Steps of the run")
    table = tag(
        "table", {"class": "broad"}, caption, tag("thead", None, head), tag("tbody", None, *rows)
    )
    summary = tag("summary", None, f"All {len(steps)} steps as a table")
    box = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": "Table of steps"}
    return tag("details", None, summary, tag("div", box, table))


def _or_dash(value: Any, write: Callable[[Any], str]) -> str:
    """A step that measures no such thing has a dash: not every step is meant to."""
    return numbers.NO_CHANGE if value is None else write(value)

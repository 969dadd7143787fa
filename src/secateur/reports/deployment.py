"""Ways to deploy beside each other: how right and how fast each is on this machine."""

from __future__ import annotations

from typing import Any

from secateur.reports import numbers
from secateur.reports.markup import Markup, join, tag
from secateur.reports.plotting import Scale, drawing, label, line, padded, rect, ticks
from secateur.reports.reading import RUNTIMES, Document, listing, mapping
from secateur.reports.sections import grid, scrolled

HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 240, 72, 16, 40, 18


def deployment_section(metrics: Document) -> Markup | None:
    """The section; None where no ways to deploy were measured (``secateur advise``)."""
    found = mapping(metrics, "deployment")
    ways = listing(found, "ways")
    if not ways:
        return None
    metric = str(found.get("metric") or "metric")
    sentence = str(found.get("sentence") or "")
    text = (
        f"{sentence[:1].upper()}{sentence[1:]} Each way answered the same validation "
        "samples through its own runtime and was timed in turn with the dense model in ONNX "
        "Runtime, beside which its speed is told."
    )
    drawn = [
        tag("div", {"class": css}, chart)
        for css, width in (("wide", 720), ("narrow", 350))
        if (chart := _plane(found, ways, metric, width)) is not None
    ]
    parts = [tag("p", None, text)]
    if drawn:
        parts.append(tag("figure", None, *drawn))
        said = (
            "A cross is the dense model, a square the pruned one, the large square what is advised."
        )
        parts.append(tag("p", {"class": "muted"}, said))
    return join([*parts, _rows(found, ways, metric), *_untried(ways)])


def _is_advised(found: Document, way: Document) -> bool:
    advice = mapping(found, "advice")
    return bool(advice) and all(
        advice.get(key) == way.get(key) for key in ("model", "runtime", "precision")
    )


def _plane(found: Document, ways: Any, metric: str, width: int) -> Markup | None:
    """The metric of each way against its time."""
    points = [
        (way, seconds, value)
        for way in ways
        if not way.get("error")
        and (seconds := numbers.finite(way.get("seconds"))) is not None
        and (value := numbers.finite(way.get("value"))) is not None
    ]
    if len(points) < 2:
        return None
    x = Scale(*padded([seconds for _, seconds, _ in points]), LEFT, width - RIGHT)
    values = [value for *_, value in points]
    y = Scale(*padded(values, 0.12 if max(values) > min(values) else 0.01), HEIGHT - BOTTOM, TOP)
    shapes = [line(LEFT, HEIGHT - BOTTOM, width - RIGHT, HEIGHT - BOTTOM, "axis")]
    for tick in ticks(x.low, x.high, 5):
        shapes.append(label(x(tick), HEIGHT - BOTTOM + 15, numbers.seconds(tick), css="tick"))
    for tick in ticks(y.low, y.high, 4):
        shapes.append(line(LEFT, y(tick), width - RIGHT, y(tick), "divider"))
        shapes.append(label(LEFT - 6, y(tick) + 4, numbers.plain(tick), "end", "tick"))
    shapes.append(label((LEFT + width - RIGHT) / 2, HEIGHT - 6, "time of a batch", css="tick"))
    shapes.append(label(LEFT - 6, TOP - 6, metric, "end", "tick"))
    for way, seconds, value in points:
        size = 12 if _is_advised(found, way) else 7
        css = "k3" if size == 12 else ("k1" if way.get("fits") else "k4")
        if way.get("model") == "dense":
            shapes.append(label(x(seconds), y(value) + 4, "×"))
            if size == 7:
                continue
        shapes.append(rect(x(seconds) - size / 2, y(value) - size / 2, size, size, css))
    text = f"{metric} against time of {len(points)} ways to deploy. Table below."
    return drawing(width, HEIGHT, "chart", text, *shapes)


def _name(way: Document) -> str:
    runtime = RUNTIMES.get(str(way.get("runtime")), str(way.get("runtime")))
    return f"{way.get('model')}, {runtime}, {way.get('precision')}"


def _rows(found: Document, ways: Any, metric: str) -> Markup:
    rows: list[list[object]] = []
    for way in ways:
        if way.get("error"):
            continue
        name = tag("span", {"style": "white-space:nowrap"}, _name(way))
        verdict = "" if way.get("fits") else "loses too much"
        if _is_advised(found, way):
            name, verdict = tag("b", None, name), "advised"
        speed = [numbers.factor(value) for value in listing(way, "speedup")]
        rows.append([
            name, numbers.seconds(way.get("seconds")),
            f"{speed[0]} ({speed[1]} to {speed[2]})" if len(speed) == 3 else "–",
            numbers.written(way.get("value"), numbers.plain),
            numbers.written(way.get("drop"), numbers.plain), numbers.size(way.get("bytes")),
            verdict,
        ])  # fmt: skip
    heads = ["Way", "Time", "Speed", metric, "Lost", "File", ""]
    return scrolled(grid("Ways to deploy", heads, rows, "broad"), "Ways to deploy")


def _untried(ways: Any) -> list[Markup]:
    said = [tag("li", None, f"{_name(way)}: {way['error']}") for way in ways if way.get("error")]
    return [tag("h3", None, "Ways that could not be tried"), tag("ul", None, *said)] if said else []

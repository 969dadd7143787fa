"""What a search of recipes tried, and what it found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any

from secateur.reports import numbers
from secateur.reports.markup import Markup, join, tag
from secateur.reports.plotting import Scale, drawing, label, line, padded, rect, ticks
from secateur.reports.reading import Document, listing, mapping
from secateur.reports.sections import grid, scrolled

LAYERS = "pruning.layers."
WRITTEN = {
    "flops": numbers.count, "params": numbers.count, "bytes": numbers.size,
    "memory": numbers.size, "latency": numbers.seconds,
}  # fmt: skip
HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 220, 72, 12, 40, 14


def search_section(metrics: Document) -> Markup | None:
    """The section; None where nothing was searched."""
    found = mapping(metrics, "search")
    trials = listing(found, "trials")
    if not trials:
        return None
    objectives = [str(text) for text in listing(found, "objectives")]
    constraints = ", ".join(map(str, listing(found, "constraints")))
    stopped = sum(not trial.get("whole") and not trial.get("error") for trial in trials)
    failed = sum(bool(trial.get("error")) for trial in trials)
    under = f" under {constraints}" if constraints else ""
    text = (
        f"{len(trials)} recipes were tried by the search {found.get('algorithm')}, for "
        f"{' and '.join(objectives)}{under}; measured on the validation split. In the picture "
        "the cross is the dense model, a light dot a trial that keeps all constraints, a dark one "
        f"another, the large one what was taken. {stopped} were stopped before their end, "
        f"{failed} failed. The best was carried out to its end, and is this report's."
    )
    read = numbers.finite(found.get("read"))
    if read is not None:
        text += (
            f" Of some it was plain on a part of the samples that they are behind; {1 - read:.0%} "
            "of the answers were not needed."
        )
    if found.get("better") is False:
        text += (
            " The dense model keeps all constraints, and no trial is better in any objective: "
            "pruning brings nothing here."
        )
    return join(
        [
            tag("p", None, text),
            *_charts(found, objectives, trials),
            _rows(found, objectives, trials),
            *_failures(trials),
        ]
    )


def _charts(found: Document, objectives: Sequence[str], trials: Sequence[Any]) -> list[Markup]:
    names = [text.split()[-1] for text in objectives]
    drawn = []
    for css, width in (("wide", 720), ("narrow", 350)):
        chart = (
            _progress(found, objectives[0], trials, width)
            if len(names) == 1
            else _plane(found, names, trials, width)
        )
        if chart is not None:
            drawn.append(tag("div", {"class": css}, chart))
    return [tag("figure", None, *drawn)] if drawn else []


def _measure(measures: Any, name: str) -> float | None:
    return numbers.finite(measures.get(name)) if isinstance(measures, dict) else None


def _progress(found: Document, objective: str, trials: Sequence[Any], width: int) -> Markup | None:
    """The objective of each trial, and the best that keeps all constraints so far."""
    way, name = objective.split()
    pairs = [(n, _measure(trial.get("measures"), name)) for n, trial in enumerate(trials, 1)]
    points = [(n, value) for n, value in pairs if value is not None]
    if len(points) < 2:
        return None
    dense = _measure(found.get("dense"), name)
    low, high = padded([v for _, v in points] + ([] if dense is None else [dense]))
    x = Scale(0, len(trials), LEFT, width - RIGHT)
    y = Scale(low, high, HEIGHT - BOTTOM, TOP)
    shapes = _frame(x, y, width, "trial", name)
    kept = [(n, v) for n, v in points if trials[n - 1].get("kept")]
    best = list(accumulate((v for _, v in kept), min if way == "min" else max))
    for ((a, _), p), ((b, _), q) in pairwise(zip(kept, best, strict=True)):
        shapes += [line(x(a), y(p), x(b), y(p), "axis"), line(x(b), y(p), x(b), y(q), "axis")]
    for n, value in points:
        css = "k1" if trials[n - 1].get("kept") else "k4"
        shapes.append(rect(x(n) - 3, y(value) - 3, 6, 6, css))
    taken = found.get("taken")
    if isinstance(taken, int) and pairs[taken][1] is not None:
        shapes.append(rect(x(taken + 1) - 5, y(pairs[taken][1] or 0.0) - 5, 10, 10, "k3"))
    if dense is not None:
        shapes.append(label(x(0), y(dense) + 4, "×"))
    text = f"{name} of {len(points)} trials, and the best so far. Table below."
    return drawing(width, HEIGHT, "chart", text, *shapes)


def _plane(
    found: Document, names: Sequence[str], trials: Sequence[Any], width: int
) -> Markup | None:
    """The first two objectives of each trial, with those of the front joined."""
    pairs = [[_measure(trial.get("measures"), name) for name in names[:2]] for trial in trials]
    points = {n: (a, b) for n, (a, b) in enumerate(pairs) if a is not None and b is not None}
    if len(points) < 2:
        return None
    dense = [_measure(found.get("dense"), name) for name in names[:2]]
    known = [(a, b) for a, b in [dense] if a is not None and b is not None]
    first = [a for a, _ in (*points.values(), *known)]
    second = [b for _, b in (*points.values(), *known)]
    x = Scale(*padded(second), LEFT, width - RIGHT)
    y = Scale(*padded(first), HEIGHT - BOTTOM, TOP)
    shapes = _frame(x, y, width, names[1], names[0])
    front = sorted((points[n][1], points[n][0]) for n in listing(found, "front") if n in points)
    for (a, p), (b, q) in pairwise(front):
        shapes.append(line(x(a), y(p), x(b), y(q), "axis"))
    for n, (a, b) in points.items():
        css = "k1" if trials[n].get("kept") else "k4"
        size = 10 if n == found.get("taken") else 6
        css = "k3" if n == found.get("taken") else css
        shapes.append(rect(x(b) - size / 2, y(a) - size / 2, size, size, css))
    for a, b in known:
        shapes.append(label(x(b), y(a) + 4, "×"))
    text = f"{names[0]} against {names[1]} of {len(points)} trials, and their front. Table below."
    return drawing(width, HEIGHT, "chart", text, *shapes)


def _frame(x: Scale, y: Scale, width: int, below: str, beside: str) -> list[Markup]:
    shapes = [line(LEFT, HEIGHT - BOTTOM, width - RIGHT, HEIGHT - BOTTOM, "axis")]
    for tick in ticks(x.low, x.high, 5):
        shapes.append(label(x(tick), HEIGHT - BOTTOM + 15, _measured(below, tick), css="tick"))
    for tick in ticks(y.low, y.high, 4):
        shapes.append(line(LEFT, y(tick), width - RIGHT, y(tick), "divider"))
        shapes.append(label(LEFT - 6, y(tick) + 4, _measured(beside, tick), "end", "tick"))
    middle = (LEFT + width - RIGHT) / 2
    shapes.append(label(middle, HEIGHT - 6, below, css="tick"))
    shapes.append(label(LEFT - 6, TOP, beside, "end", "tick"))
    return shapes


def _rows(found: Document, objectives: Sequence[str], trials: Sequence[Any]) -> Markup:
    named = [text.split()[-1] for text in objectives]
    named += [str(text).split()[0] for text in listing(found, "constraints")]
    measures = list(dict.fromkeys(named))
    keys = {key for trial in trials for key in trial.get("overrides") or {}}
    rows: list[list[object]] = []
    front = set(listing(found, "front"))
    for number, trial in enumerate(trials):
        overrides = trial.get("overrides") or {}
        said = ", ".join(f"{_short(k, keys)} {_value(v)}" for k, v in overrides.items())
        taken = number == found.get("taken")
        rows.append([
            tag("b", None, f"{number + 1}, taken: {said}") if taken else f"{number + 1}: {said}",
            *(_measured(measure, _measure(trial.get("measures"), measure)) for measure in measures),
            _end(trial, number in front and len(objectives) > 1),
            numbers.seconds(trial.get("seconds")),
        ])  # fmt: skip
    heads = ["Trial", *measures, "Came to", "Time"]
    return scrolled(grid("Trials of recipes", heads, rows, "broad"), "Trials of recipes")


def _short(key: str, keys: Iterable[str]) -> str:
    """The last word of a key, where no other ends like it."""
    if key.startswith(LAYERS):
        return key.removeprefix(LAYERS)
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key


def _failures(trials: Sequence[Any]) -> list[Markup]:
    said = [
        tag("li", None, f"{number}: {trial['error']}")
        for number, trial in enumerate(trials, 1)
        if trial.get("error")
    ]
    return [tag("h3", None, "Trials that failed"), tag("ul", None, *said)] if said else []


def _measured(name: str, value: float | None) -> str:
    return "–" if value is None else WRITTEN.get(name, numbers.plain)(value)


def _value(value: Any) -> str:
    if value is None:
        return "–"
    return numbers.plain(value) if isinstance(value, float) else str(value)


def _end(trial: Any, front: bool) -> str:
    if trial.get("error"):
        return "failed"
    if not trial.get("whole"):
        return str(trial.get("left") or "stopped")
    if not trial.get("kept"):
        return "breaks a constraint"
    return "the front" if front else "the end"

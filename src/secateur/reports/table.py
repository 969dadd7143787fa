"""Before and after, row by row, as text: the one table that every view shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from secateur.measure.latency import is_gain
from secateur.quantities import format_bytes, format_count, format_seconds
from secateur.reports import numbers
from secateur.reports.reading import Document, checked, is_share, mapping, runtime, score


@dataclass(frozen=True)
class Row:
    """One quantity of the dense and of the pruned model.

    key:      stable name, e.g. ``flops``.
    before, after, change, relative: ready to show; "not measured" and a dash where missing.
    better:   whether the change is for the better; None without a change or a judgement.
    share:    after / before where both are costs, else None.
    note:     how it was measured, or the spread; may be empty.
    """

    key: str
    label: str
    before: str
    after: str
    change: str
    relative: str
    better: bool | None
    share: float | None = None
    note: str = ""


def before_after_rows(metrics: Document) -> list[Row]:
    """The rows of the before/after table of a metrics.json document.

    Scores first (the main one, others, on the training data, the gap), then costs: parameters,
    FLOPs, bytes on disk, peak memory, latency, training step.
    """
    checked(metrics)
    rows = _scores(metrics)
    costs: list[tuple[str, str, Callable[[float], str], str]] = [
        ("params", "Parameters", format_count, ""),
        ("nonzero", "Non-zero", format_count, "parameters that are not zero"),
        ("flops", "FLOPs", format_count, "per sample; one multiply-add is 2"),
        ("bytes", "Size on disk", format_bytes, ""),
        ("peak_memory", "Peak memory", format_bytes, "of one inference"),
    ]
    for key, label, write, note in costs:
        before, after = metrics["before"].get(key), metrics["after"].get(key)
        if key != "nonzero" or mapping(metrics, "recipe").get("sparsity"):
            rows.append(_cost(key, label, before, after, write, note))
    rows.append(_latency(metrics))
    before, after = metrics["before"].get("train_step"), metrics["after"].get("train_step")
    samples = metrics["before"].get("train_step_samples")
    step = "forward, backward, update" + (f" of {samples} samples" if samples else "")
    rows.append(_cost("train_step", "Training step", before, after, format_seconds, step))
    return rows


def _scores(metrics: Document) -> list[Row]:
    main = metrics.get("metric")
    before, after = mapping(metrics["before"], "metric"), mapping(metrics["after"], "metric")
    rows = []
    if main is not None:
        rows.append(_score(metrics, "metric", str(main), before.get(main), after.get(main)))
    for name in dict.fromkeys([*before, *after]):
        if name != main:
            # Which way is better is known for the main score alone.
            old, new = before.get(name), after.get(name)
            rows.append(_plain(f"metric.{name}", str(name), old, new, None))
    trained = [score(metrics, side, "train_metric") for side in ("before", "after")]
    if main is not None and trained != [None, None]:
        label = f"{main}, training data"
        rows.append(_score(metrics, "train_metric", label, trained[0], trained[1]))
        rows.append(_gap(metrics, trained))
    return rows


def _score(metrics: Document, key: str, label: str, before: Any, after: Any) -> Row:
    old, new = numbers.finite(before), numbers.finite(after)
    more = bool(metrics.get("higher_is_better", True))
    if not is_share(metrics, before, after):
        return _plain(key, label, before, after, more)
    if old is None or new is None:
        texts = numbers.percent(before), numbers.percent(after), numbers.NO_CHANGE
    else:
        texts = numbers.points(old, new)
    return Row(key, label, *texts, numbers.relative(before, after), _better(before, after, more))


def _plain(key: str, label: str, before: Any, after: Any, more: bool | None) -> Row:
    difference = numbers.change(before, after, numbers.plain)
    change = numbers.relative(before, after)
    texts = numbers.plain(before), numbers.plain(after), difference, change
    return Row(key, label, *texts, None if more is None else _better(before, after, more))


def _gap(metrics: Document, trained: list[Any]) -> Row:
    """How much better the model is on what it was trained on; less is better."""
    sides = ("before", "after")
    pairs = [(trained[i], score(metrics, side)) for i, side in enumerate(sides)]
    gaps = [_difference(own, tested) for own, tested in pairs]
    label = "Gap, training − test"
    if not is_share(metrics, *pairs[0], *pairs[1]):
        before, after = numbers.plain(gaps[0]), numbers.plain(gaps[1])
        change = numbers.change(gaps[0], gaps[1], numbers.plain)
    else:
        before, after = (numbers.written(gap, _points) for gap in gaps)
        change = numbers.change(gaps[0], gaps[1], _points)
    # A gap has a sign of its own, and a share of it says nothing.
    return Row("gap", label, before, after, change, numbers.NO_CHANGE, None)


def _cost(
    key: str, label: str, before: Any, after: Any, write: Callable[[float], str], note: str
) -> Row:
    old, new = numbers.finite(before), numbers.finite(after)
    return Row(
        key,
        label,
        numbers.written(before, write),
        numbers.written(after, write),
        numbers.change(before, after, write),
        numbers.relative(before, after),
        _better(before, after, more=False),
        None if not old or new is None else new / old,
        note,
    )


def _latency(metrics: Document) -> Row:
    sides = [mapping(metrics[side], "latency") for side in ("before", "after")]
    medians = [side.get("median") for side in sides]
    note = _conditions(sides)
    row = _cost("latency", "Latency", medians[0], medians[1], format_seconds, note)
    before, after = (
        f"{median} ({spread})" if (spread := _spread(side)) else median
        for median, side in zip((row.before, row.after), sides, strict=True)
    )
    speedup = mapping(metrics, "speedup")
    better = row.better
    if speedup:
        # Both sides timed in turn: the ratio knows more than two medians do.
        median = numbers.finite(speedup.get("median")) or 1.0
        low = numbers.finite(speedup.get("low")) or median
        high = numbers.finite(speedup.get("high")) or median
        better = True if is_gain(median, low) else (False if high < 1 else None)
    named = runtime(metrics) if any(sides) else ""
    note = ", ".join(filter(None, [named, row.note]))
    texts = before, after, row.change, row.relative
    return Row("latency", row.label, *texts, better, row.share, note)


def _spread(latency: Document) -> str:
    low, high = numbers.finite(latency.get("low")), numbers.finite(latency.get("high"))
    if low is None or high is None:
        return ""
    first, last = format_seconds(low), format_seconds(high)
    unit = last[last.index(" ") :]
    return f"{first.removesuffix(unit)} to {last}"


def _conditions(sides: list[Document]) -> str:
    """Batch and threads; both sides where they differ, for then the numbers do not compare."""
    seen = []
    for side in sides:
        parts = [f"{key} {side[key]}" for key in ("batch", "threads") if side.get(key) is not None]
        if parts:
            seen.append(", ".join(parts))
    return " against ".join(dict.fromkeys(seen))


def _better(before: Any, after: Any, more: bool) -> bool | None:
    delta = _difference(after, before)
    return None if not delta else (delta > 0) == more


def _difference(one: Any, other: Any) -> float | None:
    left, right = numbers.finite(one), numbers.finite(other)
    return None if left is None or right is None else left - right


def _points(value: float) -> str:
    return numbers.minus(f"{100 * value:.2f} points")

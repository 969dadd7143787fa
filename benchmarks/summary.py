"""Means, deviations, confidence intervals, and tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t


@dataclass(frozen=True)
class Summary:
    """Of a sample: its mean, standard deviation (n - 1) and the 95 % interval of its mean.

    Deviation and interval are NaN for a sample of one.
    """

    count: int
    mean: float
    deviation: float
    low: float
    high: float


def summarise(values: Sequence[float]) -> Summary:
    """Student's t interval; exact where the values are normal and independent."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Summary(count, mean, math.nan, math.nan, math.nan)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
    return Summary(count, mean, deviation, mean - half, mean + half)


def verdict(summary: Summary) -> str:
    """A word for a paired difference "ours - theirs" in something that should be high."""
    if math.isnan(summary.low):
        return "one pair, no interval"
    if summary.low > 0:
        return "win"
    return "loss" if summary.high < 0 else "no difference shown"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first stand to the right."""
    lines = ["| " + " | ".join(header) + " |"]
    lines.append("|" + "|".join([" :--- ", *([" ---: "] * (len(header) - 1))]) + "|")
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def signed(value: float, digits: int = 2) -> str:
    """With its sign; a minus sign of typography."""
    return f"{value:+.{digits}f}".replace("-", "−")

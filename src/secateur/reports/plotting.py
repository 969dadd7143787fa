"""Scales and ticks for the charts, which are SVG drawn here: no library, no script."""

from __future__ import annotations

import math
from dataclasses import dataclass

from secateur.reports.markup import Markup, tag

# A character of the 12 px labels, at most; to know whether a label fits.
CHARACTER = 6.8


@dataclass(frozen=True)
class Scale:
    """Maps a range of values to a range of pixels, linearly."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        if self.high == self.low:
            return (self.start + self.stop) / 2
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 2)


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """About ``wanted`` round numbers (1, 2, 5 times a power of ten) within low..high, above 1."""
    if not high > low:
        return [low]
    while True:
        rough = (high - low) / wanted
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * by for by in (1, 2, 5, 10) if power * by >= rough * 0.999)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last > first:
            return [i * step for i in range(first, last + 1)]
        wanted += 1


def padded(values: list[float], share: float = 0.12) -> tuple[float, float]:
    """A range with some air around the values."""
    low, high = min(values), max(values)
    air = (high - low) * share or abs(high) * share or 1.0
    return low - air, high + air


def label(x: float, y: float, text: str, anchor: str = "middle", css: str = "") -> Markup:
    """A text at a point."""
    attributes = {"x": f"{x:g}", "y": f"{y:g}", "text-anchor": anchor, "class": css or None}
    return tag("text", attributes, text)


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    """A straight line."""
    ends = {"x1": f"{x1:g}", "y1": f"{y1:g}", "x2": f"{x2:g}", "y2": f"{y2:g}"}
    return tag("line", ends | {"class": css})


def rect(x: float, y: float, width: float, height: float, css: str) -> Markup:
    """A rectangle; sizes below nothing are nothing."""
    place = {"x": f"{x:.4g}", "y": f"{y:.4g}"}
    sizes = {"width": f"{max(0.0, width):.4g}", "height": f"{max(0.0, height):.4g}"}
    return tag("rect", place | sizes | {"class": css})


def drawing(width: int, height: int, css: str, name: str, *shapes: Markup) -> Markup:
    """An SVG image with a name for those who cannot see it."""
    attributes = {
        "viewBox": f"0 0 {width} {height}",
        "class": css,
        "role": "img",
        "aria-label": name,
        "preserveAspectRatio": "xMidYMid meet",
    }
    return tag("svg", attributes, *shapes)

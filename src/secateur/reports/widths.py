"""The shape of the network before and after: a chart of layer widths and the table behind it."""

from __future__ import annotations

import math
from typing import Any

from secateur.reports import numbers
from secateur.reports.markup import Markup, join, tag
from secateur.reports.plotting import CHARACTER, drawing, label, line, rect
from secateur.reports.reading import Document, listing

# Kept share from (exclusive) -> class of the colour, and words for the legend.
KEPT = (
    (0.99999, "k0", "whole"),
    (0.75, "k1", "75 to 99 %"),
    (0.5, "k2", "50 to 75 %"),
    (0.25, "k3", "25 to 50 %"),
    (-1.0, "k4", "below 25 %"),
)
_LINEAR_UP_TO = 24.0  # widest layer over the median one; above, heights are square roots


def colour(share: float) -> str:
    """The class of the colour for a kept share in 0..1."""
    return next(css for above, css, _ in KEPT if share > above)


def width_section(metrics: Document) -> Markup:
    """Chart, legend, and table of the layers; a sentence where there are none."""
    layers = [layer for layer in listing(metrics, "layers") if _width(layer, "before", 0)]
    if not layers:
        return tag("p", {"class": "muted"}, "No layer was recorded.")
    charts = [
        tag("div", {"class": css}, _chart(layers, width, height))
        for css, width, height in (("wide", 1060, 300), ("narrow", 350, 240))
    ]
    caption = (
        "One bar per layer, from input to output. Upwards: how many outputs it computes; "
        "downwards: how many inputs it reads. The outline is the dense model, the filled part "
        "is what was kept."
    )
    if _rooted(layers):
        caption += " Heights are square roots, or the widest layer would hide the others."
    legend = [
        tag("span", {"class": "key"}, tag("i", {"class": css}), words) for _, css, words in KEPT
    ]
    hint = "Point at a bar, or tap it, to read it here."
    figure = tag(
        "figure",
        {"class": "widths"},
        tag("div", {"class": "legend"}, tag("span", {"class": "muted"}, "Kept:"), *legend),
        *charts,
        tag("p", {"class": "readout js-only", "aria-hidden": "true"}, hint),
        tag("figcaption", None, caption),
    )
    return join([figure, _table(metrics, layers)])


def _width(layer: Document, side: str, dim: int) -> int:
    sizes = layer.get(side) or []
    return int(sizes[dim]) if dim < len(sizes) else 0


def _share(layer: Document, dim: int) -> float:
    before = _width(layer, "before", dim)
    return _width(layer, "after", dim) / before if before else 1.0


def _rooted(layers: list[Any]) -> bool:
    widths = sorted(_width(layer, "before", dim) for layer in layers for dim in (0, 1))
    return widths[-1] > _LINEAR_UP_TO * max(1, widths[len(widths) // 2])


def _chart(layers: list[Any], width: int, height: int) -> Markup:
    left, right, top, bottom = 44, 4, 12, 26
    slot = (width - left - right) / len(layers)
    thick = min(34.0, max(1.0, slot * 0.74))
    rooted = _rooted(layers)
    highest = [max(_width(layer, "before", dim) for layer in layers) for dim in (0, 1)]

    def length(value: float) -> float:
        return math.sqrt(value) if rooted else value

    # Both directions share one scale, so the axis stands where the two halves meet.
    per_unit = (height - top - bottom - 2) / max(1.0, sum(map(length, highest)))
    axis = top + length(highest[0]) * per_unit + 1
    shapes = []
    for start, stop, name in _stretches(layers, 14 if width > 500 else 5):
        x = left + start * slot
        if start:
            shapes.append(line(x, top, x, height - bottom + 6, "divider"))
        shown = _fitting(name, (stop - start) * slot - 4)
        if shown:
            shapes.append(label(x + (stop - start) * slot / 2, height - 6, shown, css="tick"))
    for position, layer in enumerate(layers):
        x = left + position * slot + (slot - thick) / 2
        bars = []
        for dim, direction in ((0, -1), (1, 1)):
            for side in ("before", "after"):
                tall = length(_width(layer, side, dim)) * per_unit
                y = axis - 1 - tall if direction < 0 else axis + 1
                css = "ghost" if side == "before" else colour(_share(layer, dim))
                if tall:
                    bars.append(rect(x, y, thick, tall, css))
        # The whole column listens, so that a narrow bar is still easy to point at.
        target = rect(left + position * slot, top, slot, height - top - bottom, "hit")
        title = tag("title", None, _sentence(layer))
        shapes.append(tag("g", {"class": "bar"}, title, target, *bars))
    shapes.append(line(left, axis, width - right, axis, "axis"))
    shapes.append(label(left - 6, top + 9, str(highest[0]), "end", "tick"))
    shapes.append(label(left - 6, axis + 4, "0", "end", "tick"))
    if highest[1]:
        foot = axis + 1 + length(highest[1]) * per_unit
        shapes.append(label(left - 6, foot, str(highest[1]), "end", "tick"))
    cut = sum(_share(layer, 0) < 1 or _share(layer, 1) < 1 for layer in layers)
    name = f"Widths of {len(layers)} layers before and after; {cut} became narrower. Table below."
    return drawing(width, height, "chart", name, *shapes)


def _stretches(layers: list[Any], most: int) -> list[tuple[int, int, str]]:
    """Neighbouring layers of one stage as (start, stop, name): the deepest split with ``most``."""
    names = [str(layer.get("name", "")).split(".") for layer in layers]
    best: list[tuple[int, int, str]] = []
    for depth in range(1, 5):
        runs: list[tuple[int, int, str]] = []
        for position, name in enumerate(names):
            stage = ".".join(name[:depth])
            if runs and runs[-1][2] == stage:
                runs[-1] = (runs[-1][0], position + 1, stage)
            else:
                runs.append((position, position + 1, stage))
        if len(runs) > most:
            break
        best = runs
    return best


def _fitting(name: str, room: float) -> str:
    """The name, or its last parts, as far as there is room."""
    parts = name.split(".")
    for first in range(len(parts)):
        text = ".".join(parts[first:])
        if len(text) * CHARACTER <= room:
            return text
    return ""


def _sentence(layer: Document) -> str:
    texts = [f"{layer.get('name')}:"]
    for dim, what in ((0, "outputs"), (1, "inputs")):
        before, after = _width(layer, "before", dim), _width(layer, "after", dim)
        if before:
            kept = numbers.percent(after / before, 0)
            texts.append(f"{what} {before} → {after} ({kept} kept),")
    before, after = _params(layer)
    texts.append(f"parameters {numbers.count(before)} → {numbers.count(after)}")
    return " ".join(texts)


def _params(layer: Document) -> tuple[Any, Any]:
    before, after = [*(layer.get("params") or []), None, None][:2]
    return before, after


def groups_of(metrics: Document, layer: str) -> list[Document]:
    """The groups named after a layer: ``conv1`` and ``attn.qkv/12`` for ``attn.qkv``."""
    found = []
    for group in listing(metrics, "groups"):
        stem = str(group.get("name")).partition("/")[0].partition("~")[0]
        if stem == layer or stem.rpartition(".")[0] == layer:
            found.append(group)
    return found


def _table(metrics: Document, layers: list[Any]) -> Markup:
    heads = ("Layer", "Outputs", "Inputs", "Parameters", "Kept", "Group")
    rows = []
    for layer in layers:
        name = str(layer.get("name"))
        before, after = _params(layer)
        old, new = numbers.finite(before), numbers.finite(after)
        share = new / old if old and new is not None else None
        groups = ", ".join(
            f"{group.get('before')} → {group.get('after')}" for group in groups_of(metrics, name)
        )
        cells = [
            tag("th", {"scope": "row"}, tag("code", None, name)),
            tag("td", {"class": "n"}, _pair(layer, 0)),
            tag("td", {"class": "n"}, _pair(layer, 1)),
            tag("td", {"class": "n"}, f"{numbers.count(before)} → {numbers.count(after)}"),
            tag("td", {"class": "n"}, meter(share)),
            tag("td", {"class": "n"}, groups or "–"),
        ]
        rows.append(tag("tr", None, *cells))
    head = tag("tr", None, *(tag("th", {"scope": "col"}, text) for text in heads))
    caption = tag("caption", {"class": "hidden"}, "Widths and parameters of each layer")
    table = tag(
        "table", {"class": "broad"}, caption, tag("thead", None, head), tag("tbody", None, *rows)
    )
    summary = tag("summary", None, f"All {len(layers)} layers as a table")
    box = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": "Table of layers"}
    return tag("details", None, summary, tag("div", box, table))


def _pair(layer: Document, dim: int) -> str:
    before, after = _width(layer, "before", dim), _width(layer, "after", dim)
    if not before:
        return "–"
    return f"{before} → {after}" if before != after else str(before)


def meter(share: float | None) -> Markup:
    """A small bar with the kept share in words beside it."""
    if share is None:
        return tag("span", {"class": "muted"}, numbers.NOT_MEASURED)
    filled = min(1.0, max(0.0, share))
    inner = tag("i", {"class": colour(filled), "style": f"width:{100 * filled:.1f}%"})
    bar = tag("span", {"class": "meter", "aria-hidden": "true"}, inner)
    return join([bar, tag("span", None, numbers.percent(share, 0))])

"""What a model's layers cost on a runtime, and the steps of the runtime, on one page."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from secateur.errors import InputError
from secateur.quantities import format_seconds
from secateur.reports.html import asset
from secateur.reports.markup import Markup, join, tag
from secateur.reports.plotting import Scale, drawing, label, line, rect, ticks

AXES = {
    ("convolution", 1): "input channels of a convolution",
    ("convolution", 2): "output channels of a convolution",
    ("linear", 1): "inputs of a linear layer",
    ("linear", 2): "outputs of a linear layer",
}
LAYERS = 40  # in the table of the page, the dearest first
_CSS = """
.steps { width: 100%; height: auto; }
.steps text { fill: var(--soft); font: 12px system-ui, sans-serif; }
.steps .axis { stroke: var(--rule); } .steps .off { fill: var(--outline); }
.steps .on { fill: var(--accent); }
section.half { grid-column: auto; }
.bar { background: var(--accent); height: .6rem; border-radius: 2px; }
"""


def check_page(path: Path) -> None:
    """Make the folder of a page. Errors: InputError for a path that nothing can be written to."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.open("a").close()
        else:
            tempfile.TemporaryFile(dir=path.parent).close()  # leaves nothing behind
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path} cannot be written ({reason}); give another path") from error


def write_page(document: dict[str, Any], path: Path) -> Path:
    """Write the page of a latency document, as ``secateur latency --json`` prints it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(document), encoding="utf-8")
    return path


def page(document: dict[str, Any]) -> str:
    """The page, in one file without scripts."""
    title = f"Latency of {document['model']} in {document['runtime']}"
    steps = [tag("section", {"class": "half"}, _steps(probe)) for probe in document["probes"]]
    if steps:
        about = (
            "Each dot is a layer by itself, at every width from 64 to 128. Where the runtime has "
            "steps, the widths on them are drawn in colour: a choice for latency keeps to these."
        )
        steps.insert(
            0, tag("section", None, tag("h2", None, "Steps of the runtime"), tag("p", None, about))
        )
    layers = tag("section", None, tag("h2", None, "Layers"), _table(document["layers"]))
    top = tag("header", None, tag("h1", None, title), tag("p", None, summary(document)))
    head = join([
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("title", None, title),
        tag("link", {"rel": "icon", "href": "data:,"}),
        tag("style", None, Markup(asset("report.css") + _CSS)),
    ])  # fmt: skip
    body = tag("body", None, top, tag("main", None, *steps, layers))
    whole = tag("html", {"lang": "en"}, tag("head", None, head), body)
    return f"<!doctype html>\n{whole}\n"


def summary(document: dict[str, Any]) -> str:
    """The measured time of the dense model, and how well others are predicted."""
    error = document["error"]
    well = f"; other widths are predicted within {error:.1%}" if error is not None else ""
    threads = f"{document['threads']} thread{'s' if document['threads'] > 1 else ''}"
    return (
        f"{format_seconds(document['seconds'])} for a batch of {document['batch']} on {threads} in "
        f"{document['precision']}{well}."
    )


def rule_sentence(probe: dict[str, Any]) -> str:
    """What was learnt of a width, in words."""
    name = AXES[probe["kind"], probe["axis"]]
    if probe["step"] == 1:
        return f"{name}: no steps"
    return (
        f"{name}: multiples of {probe['step']} are cheapest, widths between cost "
        f"{probe['penalty']:.2f} times as much"
    )


def _steps(probe: dict[str, Any]) -> Markup:
    widths, times = probe["widths"], [1e6 * seconds for seconds in probe["seconds"]]
    across = Scale(widths[0], widths[-1], 56, 690)
    up = Scale(0, max(times) * 1.05, 190, 12)
    shapes = [line(56, up(value), 690, up(value), "axis") for value in ticks(0, max(times), 4)]
    shapes += [label(50, up(v) + 4, f"{v:g}", "end") for v in ticks(0, max(times), 4)]
    shapes += [label(across(w), 208, str(w)) for w in widths if w % 8 == 0]
    for width, value in zip(widths, times, strict=True):
        css = "on" if probe["step"] > 1 and width % probe["step"] == 0 else "off"
        shapes.append(rect(across(width) - 3, up(value) - 3, 6, 6, css))
    sentence = rule_sentence(probe)
    return tag(
        "figure",
        None,
        drawing(700, 216, "steps", sentence, *shapes),
        tag("figcaption", None, f"Microseconds against {sentence}"),
    )


def _table(layers: list[dict[str, Any]]) -> Markup:
    shown = sorted(layers, key=lambda layer: -layer["seconds"])[:LAYERS]
    heads = ("layer", "kind", "sizes", "time", "share", "")
    rows = [tag("tr", None, *[tag("th", None, head) for head in heads])]
    largest = max((layer["share"] for layer in shown), default=1.0) or 1.0
    for layer in shown:
        width = f"width:{100 * layer['share'] / largest:.0f}%;min-width:1px"
        cells = (
            layer["name"], layer["kind"], " × ".join(map(str, layer["sizes"])),
            format_seconds(layer["seconds"]), f"{layer['share']:.1%}",
        )  # fmt: skip
        bar = tag("td", {"style": "width:30%"}, tag("div", {"class": "bar", "style": width}))
        rows.append(tag("tr", None, *[tag("td", None, cell) for cell in cells], bar))
    left = len(layers) - len(shown)
    more = tag("p", {"class": "muted"}, f"{left} cheaper layers are left out.") if left > 0 else ""
    return join(
        [tag("div", {"class": "scroll"}, tag("table", None, *rows)), tag("div", None, more)]
    )

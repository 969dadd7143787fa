"""``write_html``: a run as one page that needs no network, with its data inside."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Collection
from importlib import resources
from pathlib import Path

from secateur.reports import numbers, sections
from secateur.reports.choice import choice_section
from secateur.reports.deployment import deployment_section
from secateur.reports.markup import Markup, escaped, inline_json, join, tag
from secateur.reports.reading import Document, checked, mapping, runtime, score, target
from secateur.reports.search import search_section
from secateur.reports.sentences import verdict_clauses, verdict_line
from secateur.reports.table import Row, before_after_rows
from secateur.reports.timeline import timeline_section
from secateur.reports.widths import width_section


def write_html(metrics: Document, path: str | Path) -> Path:
    """Write the report of a metrics.json document to ``path``, and return the path.

    The file replaces an older one at once, so that an interruption leaves one whole page.
    Raises InputError where ``metrics`` is another document.
    """
    path = Path(path)
    page = render(metrics).encode("utf-8")
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(page)
    os.replace(beside, path)
    return path


def render(metrics: Document) -> str:
    """The page as text: HTML, style, script and data, and no link to anything outside."""
    checked(metrics)
    style, script = Markup(asset("report.css")), Markup(asset("report.js"))
    # The browser refuses every other script, and every load, whatever the data holds.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    title = f"{metrics.get('name') or 'Run'} – Secateur report"
    head = tag(
        "head",
        None,
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "generator", "content": "Secateur"}),
        tag("meta", {"name": "description", "content": verdict_line(metrics)}),
        tag("title", None, title),
        tag("link", {"rel": "icon", "href": "data:,"}),
        tag("style", None, style),
    )
    data = tag(
        "script", {"type": "application/json", "id": "secateur-metrics"}, inline_json(metrics)
    )
    parts = _parts(metrics)
    body = tag(
        "body",
        None,
        tag("a", {"class": "skip", "href": "#before-after"}, "Skip to the numbers"),
        _header(metrics),
        _contents(parts),
        tag("main", None, *(_section(*part) for part in parts)),
        _footer(metrics),
        data,
        tag("script", None, script),
    )
    return f"<!doctype html>\n{tag('html', {'lang': 'en'}, head, body)}\n"


def page_of(metrics: Document, names: Collection[str]) -> str:
    """Some sections of the report, by their ids, as a page. Raises InputError as ``render``."""
    checked(metrics)
    parts = [part for part in _parts(metrics) if part[0] in names]
    head = tag(
        "head", None, tag("meta", {"charset": "utf-8"}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("title", None, f"{metrics.get('name') or 'Run'} – Secateur"),
        tag("link", {"rel": "icon", "href": "data:,"}),
        tag("style", None, Markup(asset("report.css"))),
    )  # fmt: skip
    body = tag("body", None, tag("main", None, *(_section(*part) for part in parts)))
    return f"<!doctype html>\n{tag('html', {'lang': 'en'}, head, body)}\n"


def asset(name: str) -> str:
    """A file that is part of every page."""
    return (resources.files("secateur.reports") / "assets" / name).read_text(encoding="utf-8")


def _parts(metrics: Document) -> list[tuple[str, str, Markup]]:
    """The sections as (id, heading, content)."""
    searched, deployed = search_section(metrics), deployment_section(metrics)
    return [
        ("before-after", "Before and after", sections.before_after(metrics)),
        ("widths", "Layer by layer", width_section(metrics)),
        ("timeline", "How it got there", timeline_section(metrics)),
        *([] if searched is None else [("search", "What was tried", searched)]),
        ("choice", "How widths were chosen", choice_section(metrics)),
        *([] if deployed is None else [("deployment", "Ways to deploy", deployed)]),
        ("groups", "Groups", sections.groups(metrics)),
        ("frozen", "What stayed whole, and why", sections.frozen(metrics)),
        ("proof", "Proof", sections.proof(metrics)),
        ("cost", "What pruning took", sections.cost(metrics)),
        ("environment", "Environment", sections.environment(metrics)),
        ("recipe", "Recipe", sections.recipe(metrics)),
        ("notes", "Notes", sections.notes(metrics)),
        ("reproduce", "Reproduce", _reproduce(metrics)),
    ]


def _section(name: str, heading: str, content: Markup) -> Markup:
    title = tag("h2", {"id": f"{name}-title"}, heading)
    return tag("section", {"id": name, "aria-labelledby": f"{name}-title"}, title, content)


def _header(metrics: Document) -> Markup:
    facts = [
        text
        for text in (
            f"model {metrics['model']}" if metrics.get("model") else "",
            f"data {metrics['data']}" if metrics.get("data") else "",
            f"target {target(metrics)}" if target(metrics) else "",
            str(metrics.get("created") or ""),
        )
        if text
    ]
    badge = Markup()
    if metrics.get("reached") is not None and target(metrics):
        reached = bool(metrics["reached"])
        words = "target reached" if reached else "target not reached"
        badge = tag("span", {"class": f"badge {'good' if reached else 'bad'}"}, words)
    clauses = [
        tag("span", {"class": clause.tone}, clause.text) for clause in verdict_clauses(metrics)
    ]
    toggle = {"type": "button", "id": "theme", "class": "js-only", "aria-pressed": "false"}
    brand = tag("div", {"class": "brand"}, _logo(), tag("span", None, "Secateur"), badge)
    return tag(
        "header",
        None,
        tag("div", {"class": "bar-top"}, brand, tag("button", toggle, "Dark")),
        tag("h1", None, metrics.get("name") or "Run"),
        tag("p", {"class": "facts"}, *(tag("span", None, fact) for fact in facts)),
        tag("p", {"class": "verdict"}, join(clauses, "; "), "."),
        _tiles(metrics),
    )


def _logo() -> Markup:
    """Two blades and a spring: decoration, hidden from screen readers."""
    attributes = {"viewBox": "0 0 24 24", "class": "logo", "aria-hidden": "true"}
    blades = tag("path", {"d": "M13 12C9 9 7 5 8 2c4 1 6 4 7 8M11 12c4-3 5-7 4-10"})
    handles = tag("path", {"d": "M13 12c3 3 4 6 3 10M11 12c-3 3-4 6-3 10"})
    pivot = tag("circle", {"cx": "12", "cy": "12", "r": "1.6"})
    return tag("svg", attributes, blades, handles, pivot)


def _tiles(metrics: Document) -> Markup:
    """The four numbers people ask for first."""
    rows = {row.key: row for row in before_after_rows(metrics)}
    main = rows.get("metric")
    speedup = mapping(metrics, "speedup")
    ends = [speedup.get(end) for end in ("low", "high")]
    spread = " to ".join(map(numbers.factor, ends)) if None not in ends else ""
    fast = ", ".join(filter(None, [runtime(metrics) if speedup else "", spread]))
    tiles = [
        _tile("FLOPs", *_change(rows["flops"])),
        _tile(main.label, main.after, main.change) if main else _tile("Quality"),
        _tile("Speed", numbers.factor(speedup.get("median")), fast),
        _tile("Size on disk", *_change(rows["bytes"])),
    ]
    return tag("ul", {"class": "tiles"}, *tiles)


def _change(row: Row) -> tuple[str, str]:
    if row.relative == numbers.NO_CHANGE:
        return numbers.NOT_MEASURED, ""
    return row.relative, f"{row.before} → {row.after}"


def _tile(label: str, value: str = numbers.NOT_MEASURED, detail: str = "") -> Markup:
    css = "muted" if value == numbers.NOT_MEASURED else None
    detail = "" if detail == numbers.NO_CHANGE else detail
    number = tag("strong", {"class": css}, value)
    return tag("li", None, tag("span", None, label), number, tag("small", None, detail))


def _contents(parts: list[tuple[str, str, Markup]]) -> Markup:
    links = [
        tag("a", {"href": f"#{name}"}, heading.partition(",")[0]) for name, heading, _ in parts
    ]
    return tag("nav", {"aria-label": "Contents"}, *links)


def _reproduce(metrics: Document) -> Markup:
    command = metrics.get("command")
    if not command:
        return sections.muted("No command was recorded.")
    copy = {"type": "button", "class": "js-only", "id": "copy"}
    text = tag("pre", {"id": "command", "tabindex": "0"}, command)
    return tag("div", {"class": "command"}, text, tag("button", copy, "Copy"))


def _footer(metrics: Document) -> Markup:
    name = metrics.get("metric")
    ways = (
        f" {name}: {'more' if metrics.get('higher_is_better', True) else 'less'} is better."
        if name and score(metrics, "after") is not None
        else ""
    )
    text = escaped(
        "Written by Secateur. Percentages are relative to the dense model, points are absolute."
    )
    save = {"type": "button", "class": "js-only", "id": "save"}
    return tag("footer", None, tag("p", None, text, ways), tag("button", save, "Save metrics.json"))

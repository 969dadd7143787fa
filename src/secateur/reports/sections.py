"""The sections of the page that are tables and lists; the charts have files of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateur.reports import numbers
from secateur.reports.markup import Markup, join, tag
from secateur.reports.reading import Document, listing, mapping, verification
from secateur.reports.table import Row, before_after_rows
from secateur.reports.widths import meter

_TENSORS_SHOWN = 60  # per reason; the rest stays in the data below


def muted(text: str) -> Markup:
    """A sentence in place of what is not there."""
    return tag("p", {"class": "muted"}, text)


def scrolled(table: Markup, name: str) -> Markup:
    """A wide table in a box of its own, so that the page never grows sideways."""
    box = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": name}
    return tag("div", box, table)


def grid(caption: str, heads: list[str], rows: list[list[object]], css: str = "") -> Markup:
    """A table whose first column names the row and whose others are numbers."""
    head = tag("tr", None, *(tag("th", {"scope": "col"}, text) for text in heads))
    body = []
    for first, *rest in rows:
        cells = [tag("td", {"class": "n"}, cell) for cell in rest]
        body.append(tag("tr", None, tag("th", {"scope": "row"}, first), *cells))
    title = tag("caption", {"class": "hidden"}, caption)
    inner = (title, tag("thead", None, head), tag("tbody", None, *body))
    return tag("table", {"class": css or None}, *inner)


def before_after(metrics: Document) -> Markup:
    """The before/after table."""
    body = [_row(row) for row in before_after_rows(metrics)]
    heads = ("", "Dense", "Pruned", "Change")
    head = tag("tr", None, *(tag("th", {"scope": "col"}, text) for text in heads))
    title = tag("caption", {"class": "hidden"}, "The model before and after pruning")
    inner = (title, tag("thead", None, head), tag("tbody", None, *body))
    return tag("table", {"class": "versus"}, *inner)


def _row(row: Row) -> Markup:
    tone = {True: "good", False: "bad", None: "even"}[row.better]
    words = {True: "better", False: "worse", None: ""}[row.better]
    note = tag("span", {"class": "note"}, row.note) if row.note else ""
    if row.change == numbers.NO_CHANGE:
        change: list[object] = [tag("span", {"class": "muted"}, row.change)]
    else:
        # The relative change leads where there is a cost; points lead for a score.
        cost = row.share is not None
        first, second = (row.relative, row.change) if cost else (row.change, row.relative)
        second = "" if second == numbers.NO_CHANGE else second
        hidden = tag("span", {"class": "hidden"}, f" {words}") if words else ""
        change = [tag("b", {"class": tone}, first), hidden, tag("span", {"class": "note"}, second)]
    return tag(
        "tr",
        None,
        tag("th", {"scope": "row"}, row.label, note),
        _value(row.before),
        _value(row.after),
        tag("td", {"class": "n"}, *change),
    )


def _value(text: str) -> Markup:
    if text in (numbers.NOT_MEASURED, numbers.NOT_FINITE):
        return tag("td", {"class": "n muted"}, text)
    value, _, spread = text.partition(" (")
    note = tag("span", {"class": "note"}, spread.rstrip(")")) if spread else ""
    return tag("td", {"class": "n"}, value, note)


def groups(metrics: Document) -> Markup:
    """The groups, most reduced first, with what they lost."""
    found = list(listing(metrics, "groups"))
    if not found:
        return muted("No group was recorded.")

    def share(group: Document) -> float:
        before, after = numbers.finite(group.get("before")), numbers.finite(group.get("after"))
        return after / before if before and after is not None else 1.0

    cut = sum(share(group) < 1 for group in found)
    rows: list[list[object]] = []
    for group in sorted(found, key=share):
        name = tag("code", None, group.get("name"))
        kind = "exact" if group.get("exact", True) else "adapted"
        sizes = f"{group.get('before')} → {group.get('after')}"
        rows.append([name, sizes, meter(share(group)), kind])
    text = (
        f"{cut} of {len(found)} groups were cut. The units of a group leave together, in every "
        "tensor that they touch."
    )
    whole = [str(branch.get("name")) for branch in listing(metrics, "branches")]
    if whole:
        text += (
            f" Whole branches left: {', '.join(n.partition(':')[2] for n in whole)}. The sums that "
            "they ended in hand on the skip path, and the groups inside of them are gone."
        )
    if any(not group.get("exact", True) for group in found):
        text += " In an adapted group a normalisation or softmax now runs over what survived."
    table = grid("Groups of units", ["Group", "Units", "Kept", "Kind"], rows)
    if len(rows) <= 12:
        return join([tag("p", None, text), scrolled(table, "Table of groups")])
    summary = tag("summary", None, f"All {len(rows)} groups")
    box = tag("details", None, summary, scrolled(table, "Table of groups"))
    return join([tag("p", None, text), box])


def frozen(metrics: Document) -> Markup:
    """What stayed whole, by reason, with the operation and the source line that held it."""
    if metrics.get("frozen") is None:
        return muted("What was held was not recorded.")
    reasons: dict[tuple[str, str, str], list[Document]] = {}
    for entry in listing(metrics, "frozen"):
        key = (
            str(entry.get("reason") or "no reason was recorded"),
            str(entry.get("op") or ""),
            str(entry.get("source") or ""),
        )
        reasons.setdefault(key, []).append(entry)
    if not reasons:
        return muted("Nothing was held: every dimension belongs to a group.")
    cards = []
    for (reason, op, source), entries in sorted(reasons.items(), key=lambda item: -len(item[1])):
        names = [
            f"{entry.get('tensor')} dimension {entry.get('dim')} ({entry.get('indices')})"
            for entry in entries[:_TENSORS_SHOWN]
        ]
        more = len(entries) - len(names)
        items = [tag("li", None, tag("code", None, name)) for name in names]
        if more:
            items.append(tag("li", {"class": "muted"}, f"and {more} more"))
        number = f"{len(entries)} dimension{'s' if len(entries) != 1 else ''} of tensors"
        inside = tag("ul", None, *items)
        several = len(entries) > 4
        listed = tag("details", None, tag("summary", None, number), inside) if several else inside
        where = [tag("span", None, "held by "), tag("code", None, op)] if op else []
        module = str(entries[0].get("module") or "")
        if module:
            where += [tag("span", None, " in "), tag("code", None, module)]
        line = tag("pre", {"tabindex": "0"}, source) if source else ""
        heading = tag("h3", None, reason[:1].upper() + reason[1:])
        remedy = str(entries[0].get("remedy") or "")
        freed = tag("p", {"class": "note"}, f"To free it: {remedy}.") if remedy else ""
        held = tag("p", {"class": "note"}, *where)
        cards.append(tag("li", None, heading, held, line, freed, listed))
    return tag("ul", {"class": "reasons"}, *cards)


def proof(metrics: Document) -> Markup:
    """Verification and the parity of the exported models."""
    checks = verification(metrics)
    parts = []
    if checks:
        ok, exact = bool(checks.get("ok")), checks.get("exact") is not False
        how = "exact" if exact else "adapted: statistics run over what survived"
        rows: list[tuple[str, object]] = [
            ("Result", f"verified, {how}" if ok else "NOT VERIFIED"),
            ("Largest error, of the output", numbers.error(checks.get("error"))),
            ("Largest error, of the effect", numbers.error(checks.get("of_effect"))),
            ("Effect of the removal itself", numbers.percent(checks.get("effect"))),
            ("Surgery", metrics.get("surgery") or "not recorded"),
        ]
        if checks["count"] > 1:
            rows.insert(0, ("Verified pruning steps, the worst shown", str(checks["count"])))
        text = (
            "Before any repair, the pruned model was compared in float64 with the dense model "
            "whose removed slices are set to zero."
        )
        parts += [tag("p", None, text), pairs(rows)]
    else:
        parts.append(muted("The pruned model was not verified."))
    parity = mapping(metrics, "parity")
    if parity:
        rows_of: list[list[object]] = []
        for name, value in parity.items():
            value = value or {}
            texts = [numbers.error(value.get(key)) for key in ("max_abs", "relative")]
            rows_of.append([tag("code", None, name), *texts])
        heads = ["Export", "Largest difference", "Relative"]
        table = grid("Exported models against PyTorch", heads, rows_of)
        parts += [tag("h3", None, "Exported models against PyTorch"), table]
    return join(parts)


def pairs(rows: list[tuple[str, object]]) -> Markup:
    """Names with values."""
    inner = [
        tag("div", None, tag("dt", None, name), tag("dd", None, value)) for name, value in rows
    ]
    return tag("dl", None, *inner)


def cost(metrics: Document) -> Markup:
    """What pruning itself took, as bars of time."""
    times = mapping(metrics, "cost")
    total = numbers.finite(times.get("total"))
    parts = {key: value for key, value in times.items() if key != "total"}
    known = [value for value in map(numbers.finite, parts.values()) if value]
    longest = max(known, default=0.0)
    rows: list[list[object]] = []
    for key, value in parts.items():
        found = numbers.finite(value)
        width = 100 * found / longest if found and longest else 0.0
        bar = tag("i", {"class": "time", "style": f"width:{width:.1f}%"})
        shown = tag("span", {"class": "meter long", "aria-hidden": "true"}, bar) if width else ""
        rows.append([key, shown, numbers.seconds(value)])
    if not rows and total is None:
        return muted("The time that pruning took was not measured.")
    if total is not None:
        rows.append([tag("b", None, "total"), "", tag("b", None, numbers.seconds(total))])
    heads = ["Step", Markup('<span class="hidden">Share</span>'), "Time"]
    return grid("Time that pruning took", heads, rows, "times")


def environment(metrics: Document) -> Markup:
    """Where it ran."""
    # The job notes here what stands on top of the page and below it already.
    told = ("created", "command")
    found = {k: v for k, v in mapping(metrics, "environment").items() if k not in told}
    if not found:
        return muted("The environment was not recorded.")
    return pairs([(str(key), _words(value)) for key, value in found.items()])


def _words(value: Any) -> str:
    if value is None:
        return "not recorded"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    return str(value)


def recipe(metrics: Document) -> Markup:
    """The resolved recipe as YAML."""
    found = mapping(metrics, "recipe")
    if not found:
        return muted("No recipe was recorded.")
    import yaml  # when a page is written, not when the package is imported

    text = yaml.safe_dump(dict(found), sort_keys=False, allow_unicode=True)
    return tag("pre", {"class": "recipe", "tabindex": "0"}, text)


def notes(metrics: Document) -> Markup:
    """Notes of the run, and the operations that no cost was counted for."""
    written = [tag("li", None, text) for text in listing(metrics, "notes")]
    parts = [tag("ul", {"class": "plain"}, *written) if written else muted("No notes.")]
    uncounted = metrics.get("uncounted")
    if uncounted is None:
        parts.append(muted("Which operations the FLOPs leave out was not recorded."))
    elif uncounted:
        names = join([tag("code", None, op) for op in uncounted], ", ")
        text = "FLOPs leave out these operations, before and after alike: "
        parts.append(tag("p", None, text, names, "."))
    else:
        parts.append(tag("p", None, "Every operation was counted in the FLOPs."))
    return join(parts)

"""``docs/zoo.md`` from the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.summary import table

from model_zoo import subjects
from model_zoo.seconds import IN_TRACE, own_seconds

Row = dict[str, Any]
LEFT_HALF, LEFT_ENCODER = 0.4, 0.7  # 60 % leave of models with heads, 30 % of encoders


def page(results: dict[str, Row]) -> str:
    """The page; ``results`` is by ``source:name``."""
    wanted = {s: [f"{s}:{name}" for name in subjects.names(s)] for s in subjects.SOURCES}
    lines = [
        "# The zoo\n",
        "Every architecture below is pruned at random: its weights and statistics are redrawn, "
        "half of the units of every group leave, and the smaller model is compared in float64 "
        "with the dense one whose removed slices are zero. The difference must be at most 1e-6 of "
        "what the removal changed (or of what is left of the output, where that is less), the "
        "change at least 1e-3 of the output, the same comparison with other units of one group "
        "must fail, one sample and three must give what they give "
        "in a batch of two, and a second random plan on the pruned model must hold as well. "
        "*Adapted* models have a statistic (a layer norm, say) over units that leave; it runs "
        "over the survivors on both sides. Of detectors, whose code goes by the boxes that they "
        "find, the backbone is pruned and compared (`part=\"backbone\"`). Reproduce: `make zoo`.\n",
        "## In short\n",
        table(
            ["", "models", "checked", "exact or adapted", "own class kept",
             "own class kept, even plans", "enough leaves"],
            [_summary(source, [results.get(m) for m in models])
             for source, models in wanted.items()],
        ),
        "\n*Own class kept*: module surgery served, so that the result is the user's class with "
        "smaller tensors; otherwise it is the captured graph. *Even plans* take the same number of "
        "units from each head, or where that is refused leave heads as they are (widths). "
        "*Enough leaves*: at least 60 % of the parameters of a model with "
        "a head left with half of every group, at least 30 % of one without. *Ours*: seconds of "
        "trace and apply outside torch.export, on one core of a busy machine.\n",
        *_failures(results, wanted),
    ]  # fmt: skip
    for source, models in wanted.items():
        lines += [f"\n## {source}\n", table(
            ["model", "verdict", "difference, of the effect", "reference", "groups",
             "parameters", "left", "surgery", "even plan", "trace", "apply", "ours", "frozen"],
            [_line(m, results[m]) for m in models if m in results],
        )]  # fmt: skip
    return "\n".join([*lines, ""])


def _summary(source: str, rows: Sequence[Row | None]) -> list[str]:
    checked = [row for row in rows if row is not None]
    passed = [row for row in checked if row["verdict"] != "failed"]
    return [
        source, str(len(rows)), str(len(checked)), _share(checked, lambda r: r in passed),
        _share(passed, lambda r: r["surgery"] == "module"),
        _share(passed, lambda r: r["even"].get("surgery") == "module"),
        _share(passed, lambda r: r["left"] <= (LEFT_HALF if r["heads"] else LEFT_ENCODER)),
    ]  # fmt: skip


def _share(rows: Sequence[Row], which: Callable[[Row], bool]) -> str:
    count = sum(which(row) for row in rows)
    return f"{count} ({count / len(rows):.1%})" if rows else "–"


def _failures(results: dict[str, Row], wanted: dict[str, list[str]]) -> Iterable[str]:
    failed = [m for models in wanted.values() for m in models if _failed(results.get(m))]
    if failed:
        yield "\n## Not in these\n"
        yield table(
            ["model", "step", "cause"],
            [[m, results[m].get("step", "–"), _cell(results[m].get("why", "–"))] for m in failed],
        )


def _failed(row: Row | None) -> bool:
    return row is not None and row["verdict"] == "failed"


def _line(model: str, row: Row) -> list[str]:
    seconds, even = row.get("seconds", {}), row.get("even", {})
    return [
        model.partition(":")[2], row["verdict"], _number(row.get("of_effect"), ".0e"),
        row.get("reference", "–"), str(row.get("groups", "–")),
        _number(row.get("params"), ",d"), _number(row.get("left"), ".0%"),
        row.get("surgery", "–"), _even(even),
        _number(seconds.get("trace"), ".1f"), _number(seconds.get("apply"), ".1f"),
        _number(own_seconds(row) if IN_TRACE in seconds and "apply" in seconds else None, ".1f"),
        _cell(row.get("frozen", "–").partition(";")[0]),
    ]  # fmt: skip


def _even(even: Row) -> str:
    words = {"halved_widths": " (widths)"}
    return even.get("surgery", "–") + words.get(even.get("plan", ""), "")


def _number(value: Any, form: str) -> str:
    return "–" if value is None else format(value, form)


def _cell(text: str) -> str:
    text = text[:200].replace("|", "\\|").replace("<", "&lt;")
    return text.replace("[", "\\[")

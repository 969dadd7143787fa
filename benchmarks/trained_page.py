"""docs/results/trained.md from the ledger's lines."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import trained
from benchmarks.ledger import Row
from benchmarks.oneshot import DEFAULT, Contestant
from benchmarks.summary import Summary, signed, summarise, table
from benchmarks.trained import BUDGETS, CONTESTANTS, EPOCHS, LONG_EPOCHS, NETS, SMALL

SEEDS = 3
Values = dict[tuple[str, float, float, str], dict[int, float]]  # accuracy, in percent, by seed


def page(rows: Sequence[Row]) -> str:
    """The page of the full run, or, where there is none, of the quick one, marked as such."""
    rows = [row for row in rows if _is_current(row)]
    quick = all(row["cell"]["quick"] for row in rows)
    rows = [row for row in rows if row["cell"]["quick"] == quick]
    if not rows:
        return "# With training, on Fashion-MNIST\n\nNot measured yet.\n"
    before, after = _values(rows, "before"), _values(rows, "accuracy")
    where = rows[0]["environment"]
    hours = sum(row["seconds"] for row in rows) / 3600
    parts = [
        "# With training, on Fashion-MNIST\n",
        *(trained.__doc__ or "").strip().splitlines()[2:],
        "",
        "**Quick run: a part of the images.**\n" * quick,
        f"{len(rows)} of {len(trained.cells(SEEDS, quick, ()))} cells measured, on {where['cpu']}, "
        f"{where['threads']} thread(s), torch {where['torch']}: {hours:.1f} hours. Reproduce: "
        f"`python -m benchmarks trained{' --quick' if quick else ''}`.\n",
        "Test accuracy in percent, means and deviations over three seeds or those there are.\n",
    ]
    for net in NETS:
        for budget in BUDGETS:
            section = _section(net, budget, before, after)
            if section:
                parts += [f"\n## {net}, {budget:.0%} of the FLOPs\n", section]
    parts += ["\n## Where the lead goes\n", _lead(before, after)]
    return "\n".join(parts) + "\n"


def _is_current(row: Row) -> bool:
    cell = row["cell"]
    who = {(c.tool, c.name): c for c in (*CONTESTANTS, SMALL)}.get((cell["tool"], cell["name"]))
    if who is None or cell["net"] not in NETS:
        return False
    now = trained.setting(cell["net"], who, cell["quick"])
    return all(cell.get(key) == value for key, value in now.items())


def _values(rows: Sequence[Row], name: str) -> Values:
    found: Values = {}
    for row in rows:
        cell = row["cell"]
        key = (cell["net"], cell["budget"], cell["epochs"], _label(cell["tool"], cell["name"]))
        found.setdefault(key, {})[cell["seed"]] = 100 * row["result"][name]
    return found


def _label(tool: str, name: str) -> str:
    return name if tool == SMALL.tool else f"{tool}, {name}"


def _of(who: Contestant) -> str:
    return _label(who.tool, who.name)


def _section(net: str, budget: float, before: Values, after: Values) -> str:
    lengths = [*EPOCHS, LONG_EPOCHS]
    lines = []
    for who in (*CONTESTANTS, SMALL):
        columns = [after.get((net, budget, epochs, _of(who)), {}) for epochs in lengths]
        if not any(columns):
            continue
        first = {} if who is SMALL else before.get((net, budget, EPOCHS[0], _of(who)), {})
        lines.append([_of(who), *(_text(values) for values in (first, *columns))])
    if not lines:
        return ""
    return table(["contestant", "before", *(f"{e:g} epochs" for e in lengths)], lines)


def _text(values: dict[int, float]) -> str:
    if not values:
        return "–"
    found = summarise(list(values.values()))
    return f"{found.mean:.2f}{_spread(found)}"


def _spread(found: Summary) -> str:
    """The deviation, and the number of seeds where some are missing."""
    deviation = f" ± {found.deviation:.2f}" if found.count > 1 else ""
    return deviation + (f" ({found.count} of {SEEDS} seeds)" if found.count < SEEDS else "")


def _lead(before: Values, after: Values) -> str:
    """Secateur's default less the best other one that was pruned, and less the small dense net."""
    lines = []
    for net in NETS:
        for budget in BUDGETS:
            gaps = []
            for values, epochs in [(before, EPOCHS[0]), *((after, e) for e in EPOCHS),
                                   (after, LONG_EPOCHS)]:  # fmt: skip
                ours = values.get((net, budget, epochs, _of(DEFAULT)), {})
                others = [values.get((net, budget, epochs, _of(w)), {}) for w in CONTESTANTS[1:]]
                gaps.append(_gap(ours, others))
            ours, small = (
                after.get((net, budget, max(EPOCHS), _of(w)), {}) for w in (DEFAULT, SMALL)
            )
            gaps.append(_gap(ours, [small]))
            if any(gap != "–" for gap in gaps):
                lines.append([net, f"{budget:.0%}", *gaps])
    lengths = [f"{e:g} epochs" for e in (*EPOCHS, LONG_EPOCHS)]
    header = ["net", "FLOPs left", "before", *lengths, "small dense net"]
    return (
        "Secateur's default less the best of the other pruned nets, in points, paired by seed; "
        "the best is chosen by the test images, which its user could not do. Last column: the "
        f"default after {max(EPOCHS):g} epochs less the small dense net of the same cost, which "
        "was trained for the dense net's epochs and those.\n\n"
        f"{table(header, lines)}"
    )


def _gap(ours: dict[int, float], others: Sequence[dict[int, float]]) -> str:
    """Ours less the best of the others, over the seeds that all have."""
    seeds = [seed for seed in ours if all(seed in other for other in others)]
    if not seeds:
        return "–"
    gap = summarise([ours[seed] - max(other[seed] for other in others) for seed in seeds])
    return f"{signed(gap.mean)}{_spread(gap)}"

"""docs/results/oneshot.md from the ledger's lines."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import oneshot as bench
from benchmarks.ledger import Row
from benchmarks.oneshot import CONTESTANTS, DEFAULT, NETS, THEIRS, Contestant
from benchmarks.summary import signed, summarise, table

BUDGETS = sorted(bench.BUDGETS, reverse=True)
Cells = dict[tuple[str, float, str], dict[int, float]]


def page(rows: Sequence[Row]) -> str:
    """The page of the full run, or, where there is none, of the quick one, marked as such."""
    rows = [row for row in rows if _is_current(row)]
    quick = all(row["cell"]["quick"] for row in rows)
    rows = [row for row in rows if row["cell"]["quick"] == quick]
    if not rows:
        return "# Without training, on Fashion-MNIST\n\nNot measured yet.\n"
    dense = {
        r["cell"]["net"]: r["result"]["accuracy"] for r in rows if r["cell"]["tool"] == "dense"
    }
    cells = _cells(rows)
    wanted = [key for *_, key in bench.cells(3, quick, ())]
    measured = sum(row["cell"] in wanted for row in rows)
    where = rows[0]["environment"]
    hours = sum(row["seconds"] for row in rows) / 3600
    parts = [
        "# Without training, on Fashion-MNIST\n",
        *(bench.__doc__ or "").strip().splitlines()[2:],
        "",
        "Torch-Pruning 1.6.1. Its Hessian importance keeps the gradient of one image alone "
        "(a fault of that release; `benchmarks/torch_pruning_side.py` says which).\n",
        f"**Quick run: {bench.QUICK_IMAGES} images, a part of the test images.**\n" * quick,
        f"{measured} of {len(wanted)} cells measured, on {where['cpu']}, {where['threads']} "
        f"thread(s), torch {where['torch']}: {hours:.1f} hours. Reproduce: `python -m benchmarks "
        "oneshot"
        f"{' --quick' if quick else ''}`.\n",
        "## Secateur beside the best of Torch-Pruning\n",
        "Test accuracy in percent, means over the seeds that are there; the difference is paired "
        "by seed, against the best of Torch-Pruning's six settings for that net, budget and seed "
        "as the test images show it: a choice that its user could not make.\n",
        _headline(cells, dense),
    ]
    for net in NETS:
        if net in dense:
            parts += [f"\n## {net}\n", f"Dense: {100 * dense[net]:.2f} %.\n", _net(cells, net)]
    return "\n".join(parts) + "\n"


def _is_current(row: Row) -> bool:
    cell = row["cell"]
    if cell["net"] not in NETS:
        return False
    if cell["tool"] == "dense":
        return cell["weights"] == bench.setting(cell["net"], DEFAULT, False)["weights"]
    who = {(c.tool, c.name): c for c in CONTESTANTS}.get((cell["tool"], cell["name"]))
    if who is None:
        return False
    now = bench.setting(cell["net"], who, cell["quick"])
    return all(cell.get(key) == value for key, value in now.items())


def _cells(rows: Sequence[Row]) -> Cells:
    found: Cells = {}
    for row in rows:
        cell = row["cell"]
        if cell["tool"] != "dense":
            key = (cell["net"], cell["budget"], f"{cell['tool']}, {cell['name']}")
            found.setdefault(key, {})[cell["seed"]] = row["result"]["accuracy"]
    return found


def _label(who: Contestant) -> str:
    return f"{who.tool}, {who.name}"


def _headline(cells: Cells, dense: dict[str, float]) -> str:
    lines = []
    for net in NETS:
        for budget in BUDGETS:
            ours = cells.get((net, budget, _label(DEFAULT)), {})
            theirs = [cells.get((net, budget, _label(who)), {}) for who in THEIRS]
            seeds = [s for s in ours if all(s in other for other in theirs)]
            if not seeds or net not in dense:
                continue
            best = {seed: max(other[seed] for other in theirs) for seed in seeds}
            gaps = summarise([100 * (ours[seed] - best[seed]) for seed in seeds])
            mean = sum(ours[seed] for seed in seeds) / len(seeds)
            spread = f" ± {gaps.deviation:.1f}" if gaps.count > 1 else ""
            lines.append([
                net, f"{budget:.0%}", f"{100 * mean:.2f}", signed(100 * (mean - dense[net])),
                f"{100 * sum(best.values()) / len(best):.2f}",
                f"{signed(gaps.mean)}{spread}", str(gaps.count),
            ])  # fmt: skip
    header = ["net", "FLOPs left", "Secateur", "beside dense", "best of Torch-Pruning",
              "difference, points", "seeds"]  # fmt: skip
    return table(header, lines)


def _net(cells: Cells, net: str) -> str:
    lines = []
    for who in CONTESTANTS:
        found = [cells.get((net, budget, _label(who)), {}) for budget in BUDGETS]
        if not any(found):
            continue
        texts = []
        for values in found:
            if not values:
                texts.append("–")
                continue
            s = summarise([100 * value for value in values.values()])
            texts.append(f"{s.mean:.2f}" + (f" ± {s.deviation:.2f}" if s.count > 1 else ""))
        lines.append([_label(who), *texts])
    return table(["contestant", *(f"{budget:.0%}" for budget in BUDGETS)], lines)

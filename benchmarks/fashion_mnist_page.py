"""docs/results/fashion-mnist.md from the ledger's lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks import fashion_mnist as bench
from benchmarks.fashion_mnist import Contestant
from benchmarks.ledger import Row
from benchmarks.summary import signed, summarise, table, verdict

Value = Callable[[Row], float]


def page(rows: Sequence[Row]) -> str:
    """The page of the full run, or, where there is none, of the quick one, marked as such."""
    # Lines of other weights or settings stay in the ledger and are not shown.
    rows = [row for row in rows if _is_current(row)]
    quick = all(row["cell"]["quick"] for row in rows)
    rows = [row for row in rows if row["cell"]["quick"] == quick]
    if not rows:
        return "# Accuracy at half the FLOPs, on Fashion-MNIST\n\nNot measured yet.\n"
    dense = {row["cell"]["net"]: row for row in rows if row["cell"]["tool"] == "dense"}
    found = Found([row for row in rows if row["cell"]["tool"] != "dense"])
    where = rows[0]["environment"]
    hours = sum(row["seconds"] for row in rows) / 3600
    parts = [
        "# Accuracy at half the FLOPs, on Fashion-MNIST\n",
        *(bench.__doc__ or "").strip().splitlines()[2:],
        "",
        _settings(quick),
        f"Measured on {where['cpu']}, {where['threads']} thread(s), torch {where['torch']}: "
        f"{hours:.1f} hours. Reproduce: `python -m benchmarks fashion_mnist"
        f"{' --quick' if quick else ''}`.\n",
        "## Paired differences\n",
        "Test accuracy after fine-tuning, in points; each pair has net and seed in common. The "
        "interval is Student's t for the mean of the pairs; the pairs of one net share their "
        "dense weights, so that the column over all nets speaks of these nets alone. *Win* and "
        "*loss* are said where the 95 % interval leaves zero out. There is no correction for the "
        "number of rows: without any true difference, a table of nine rows holds such a word in "
        "about one case of three. L2 draws nothing, so that its seeds differ in what follows the "
        "pruning alone.\n",
        _differences(found, lambda row: row["result"]["finetuned"]),
        "\nThe same without fine-tuning, after the recalibration of batch norms:\n",
        _differences(found, lambda row: row["result"]["recalibrated"]),
    ]
    for net in bench.NETS:
        if net in dense:
            parts += [f"\n## {net}\n", _dense_line(dense[net]), _net(found, net)]
    return "\n".join(parts) + "\n"


def _is_current(row: Row) -> bool:
    cell = row["cell"]
    now = bench.setting(cell["net"], cell["quick"])
    return all(cell.get(key) == value for key, value in now.items())


class Found:
    """Finished cells by net, contestant and seed."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.by_key: dict[tuple[str, Contestant], dict[int, Row]] = {}
        for row in rows:
            cell = row["cell"]
            who = Contestant(cell["tool"], cell["criterion"], cell["scope"])
            self.by_key.setdefault((cell["net"], who), {})[cell["seed"]] = row

    def of(self, net: str, who: Contestant) -> dict[int, Row]:
        """Seed -> row."""
        return self.by_key.get((net, who), {})

    def differences(self, net: str, a: Contestant, b: Contestant, value: Value) -> list[float]:
        """a − b in points, for the seeds that both have."""
        ours, other = self.of(net, a), self.of(net, b)
        return [100 * (value(ours[seed]) - value(other[seed])) for seed in ours if seed in other]


def _differences(found: Found, value: Value) -> str:
    lines = []
    for ours, other in bench.PAIRS:
        pairs = [found.differences(net, ours, other, value) for net in bench.NETS]
        pooled = [pair for of_net in pairs for pair in of_net]
        if pooled:
            lines.append([f"{ours.name} − {other.name}", *(_interval(of_net) for of_net in pairs),
                          f"**{_interval(pooled)}**", verdict(summarise(pooled))])  # fmt: skip
    return table(["pair", *bench.NETS, "all", "verdict (all)"], lines)


def _interval(pairs: Sequence[float]) -> str:
    if not pairs:
        return "–"
    summary = summarise(pairs)
    if summary.count < 2:
        return f"{signed(summary.mean)} (n = 1)"
    return f"{signed(summary.mean)} ({signed(summary.low)} … {signed(summary.high)})"


def _net(found: Found, net: str) -> str:
    lines = []
    for who in bench.CONTESTANTS:
        rows = found.of(net, who)
        if not rows:
            continue
        results = [rows[seed]["result"] for seed in sorted(rows)]
        seeds = ", ".join(f"{100 * result['finetuned']:.2f}" for result in results)
        lines.append([who.name, *(_mean(results, key) for key in ("flops", "params")),
                      *(_spread(results, key) for key in ("pruned", "recalibrated", "finetuned")),
                      seeds])  # fmt: skip
    header = ["tool, criterion, scope", "FLOPs %", "parameters %", "pruned", "recalibrated",
              "fine-tuned", "fine-tuned, by seed"]  # fmt: skip
    return table(header, lines)


def _mean(results: Sequence[Row], key: str) -> str:
    return f"{100 * summarise([result[key] for result in results]).mean:.1f}"


def _spread(results: Sequence[Row], key: str) -> str:
    summary = summarise([100 * result[key] for result in results])
    return f"{summary.mean:.2f}" + (f" ± {summary.deviation:.2f}" if summary.count > 1 else "")


def _dense_line(row: Row) -> str:
    result = row["result"]
    return (
        f"Dense: **{100 * result['accuracy']:.2f} %**, {result['flops'] / 2e6:.1f} million "
        f"multiply-adds, {result['params']:,} parameters. Accuracies in %, mean ± standard "
        "deviation over seeds.\n"
    )


def _settings(quick: bool) -> str:
    s, a = bench.SETTINGS, bench.ADAMW
    lines = [
        f"Fine-tuning: {s.epochs} epoch(s), batches of {s.batch_size}, "
        f"SGD at {s.learning_rate} (vit: AdamW at {a.learning_rate}), cosine, mirror and shifts of "
        f"{s.augmentation.crop} pixels. Taylor reads {bench.CALIBRATION[1]} batches of "
        f"{bench.CALIBRATION[0]} images, the recalibration {bench.RECALIBRATION[1]} of "
        f"{bench.RECALIBRATION[0]}. No width falls below {bench.LEAST:.0%} on either side. "
        "Torch-Pruning goes in steps of 1/400 as in its own examples, with its default group "
        "importances, to the first net that holds the budget; gradients are summed over the same "
        "batches. Its *local* cuts every group by the same share, as *uniform* does here; "
        "*isomorphic* ranks groups of one form together. It is told output layers and heads; of "
        "heads it prunes the width, "
        "which is its default.\n"
    ]
    if quick:
        lines.append(
            f"**QUICK RUN**: {bench.QUICK_TRAIN:,} training images and {bench.QUICK_TEST:,} test "
            "images. These numbers show that the benchmark works, and no more.\n"
        )
    return "\n".join(lines)

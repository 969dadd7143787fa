"""docs/results/claims.md, from the cells that are measured."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import claims
from benchmarks.ledger import Row
from benchmarks.summary import Summary, signed, summarise, table


def verdict(summary: Summary) -> str:
    """In a word."""
    if summary.count < 2:
        return "one seed"
    if summary.low > 0:
        return "**shown**"
    return "**contradicted**" if summary.high < 0 else "not shown"


def page(rows: Sequence[Row]) -> str:
    """docs/results/claims.md."""
    found = {
        (row["cell"]["claim"], row["cell"]["seed"]): row["result"]["value"]
        for row in rows
        if not row["cell"]["quick"]
    }
    lines = []
    for claim in claims.CLAIMS:
        values = [value for (name, _), value in sorted(found.items()) if name == claim.name]
        if not values:
            continue
        summary = summarise(values)
        lines.append([
            claim.name, claim.tried, f"{signed(summary.mean)} {claim.unit}",
            f"{signed(summary.low)} … {signed(summary.high)}" if summary.count > 1 else "–",
            verdict(summary), str(summary.count),
        ])  # fmt: skip
    where = rows[0]["environment"]
    header = ["claim", "tried", "mean", "95 % interval", "", "seeds"]
    return "\n".join([
        "# Claims\n",
        *(claims.__doc__ or "").strip().splitlines()[2:],
        "",
        table(header, lines) if lines else "Not measured yet.",
        "\nThe first two say the same where both nets have learnt all training images, as here.\n",
        "That a rewound ticket beats its mask with other weights is tried in "
        "[Lottery tickets](lottery.md); that criteria differ, in "
        "[Methods side by side](methods.md).\n",
        f"Measured on {where['cpu']}, {where['threads']} thread(s), torch {where['torch']}. "
        "Reproduce: `python -m benchmarks claims`.",
    ]) + "\n"  # fmt: skip

"""Four searches live on a trained net, at equal evaluations.

The ResNet-20 of the examples (7.8 million multiply-adds, Fashion-MNIST) keeps 25 % of its FLOPs.
Each search decides its widths from 50 evaluations: all layers are solved anew for the widths, and
the answers of the net compared with those of the dense one on held-out training images (the loss,
less is better). Nothing is trained; the test images are not used. All begin with the same two
seeds: the answer of the table of losses, and the same share everywhere. A seed draws the
calibration images as well, so that searches of one seed see the same and those of two do not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.ledger import Ledger, Row
from benchmarks.summary import table
from secateur.config import Recipe, read_recipe
from secateur.job.comparing import search_live
from secateur.searching._comparing import Cell, best_so_far

ROOT = Path(__file__).parents[1]
ALGORITHMS = ("auto", "annealing", "tpe", "random")
TRIALS, SHARE = 50, "0.25x"
COUNTS = (2, 10, 20, 50)


def recipe() -> Recipe:
    """That of the examples, with another budget and without training or files."""
    return read_recipe(
        {
            "model": f"{ROOT / 'examples' / 'nets.py'}:trained",
            "model_args": {"net": "resnet20"},
            "data": {"source": "fashion-mnist", "batch_size": 128, "calibration": 1024},
            "target": {"flops": SHARE},
            "search": {"algorithm": ALGORITHMS[0], "trials": TRIALS},
        },
        "benchmarks/search_live.py",
    )


def run(seeds: int, quick: bool) -> None:
    """Make the searches that are missing. quick: of one seed."""
    ledger, known = Ledger("search_live"), recipe()
    for seed in range(1 if quick else seeds):
        for name in ALGORITHMS:
            cell = Cell(f"resnet20 at {SHARE}", "", name, True, seed, TRIALS)
            row = ledger.measure(asdict(cell), lambda cell=cell: _measured(known, cell))
            print(f"search_live {name}, seed {seed}: {min(row['result']['values']):.4g}, "
                  f"{row['seconds']:.0f} s", flush=True)  # fmt: skip


def _measured(known: Recipe, cell: Cell) -> Row:
    values = search_live(known, cell, ROOT / "runs" / "search-live").values
    return {"values": [float(f"{value:.6g}") for value in values]}


def page(rows: Sequence[Row]) -> str:
    """docs/results/search-live.md."""
    draws: dict[str, dict[int, np.ndarray]] = defaultdict(dict)
    for row in rows:
        cell = row["cell"]
        draws[cell["algorithm"]][cell["seed"]] = best_so_far(row["result"]["values"], TRIALS)
    whole = [seed for seed in draws["auto"] if all(seed in draws[name] for name in ALGORITHMS)]
    where = rows[-1]["environment"]
    if not whole:
        return "# Searches live\n\nNot measured yet: of no seed are all four searches finished.\n"
    lines, beside = [], []
    for name in ALGORITHMS:
        found = np.array([draws[name][seed] for seed in whole])
        lines.append([name, *(_spread(found[:, count - 1]) for count in COUNTS)])
        if name != "auto":
            ours = np.array([draws["auto"][seed] for seed in whole])
            beside.append([name, *(
                f"{np.mean(ours[:, at - 1] < found[:, last - 1]):.0%}"
                f" ({np.mean(ours[:, at - 1] - found[:, last - 1]):+.4f})"
                for at, last in ((20, 50), (50, 50))
            )])  # fmt: skip
    return "\n".join([
        "# Searches live\n",
        *(__doc__ or "").strip().splitlines()[2:],
        "",
        f"{len(whole)} seeds, {where['cpu']}, torch {where['torch']}. Reproduce: `python -m "
        "benchmarks search_live`; `secateur compare-search` does the same with a recipe of your "
        "own. Means of the least loss so far, ± the standard deviation over seeds.\n",
        table(["algorithm", "seeds alone", *(f"after {count}" for count in COUNTS[1:])], lines),
        "\n`auto` beside each: the share of seeds where its loss is less, and the mean "
        "difference.\n",
        table(["beside", "auto at 20, other at 50", "both at 50"], beside),
    ]) + "\n"  # fmt: skip


def _spread(values: np.ndarray) -> str:
    spread = f" ± {values.std(ddof=1):.2g}" if len(values) > 1 else ""
    return f"{values.mean():.4g}{spread}"

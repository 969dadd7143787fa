"""Algorithms side by side: the values of their evaluations, and what a table says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.searching import ALGORITHMS
from secateur.searching._landscapes import Landscape
from secateur.searching._running import run_search

COUNTS = (10, 20, 50, 100, 200)  # of evaluations, at which algorithms are compared
SCHEMA = "secateur.search-comparison/1"


@dataclass(frozen=True)
class Cell:
    """One search of a comparison.

    subject: what is searched; digest: of what is known of it, so that another one of the same name
    is another. seeded: whether it began with the table's answer and the same share everywhere.
    """

    subject: str
    digest: str
    algorithm: str
    seeded: bool
    seed: int
    trials: int


@dataclass(frozen=True)
class Line:
    """One cell, and the values of its evaluations in their order."""

    cell: Cell
    values: tuple[float, ...]


def search_landscape(landscape: Landscape, cell: Cell) -> Line:
    """The line of a search where every answer is known."""
    problem = landscape.problem(cell.seeded)
    known = dict(zip(map(tuple, landscape.points.tolist()), landscape.values.tolist(), strict=True))
    algorithm = ALGORITHMS.get(cell.algorithm)(problem, cell.seed, cell.trials)
    found = run_search(problem, algorithm, lambda point: known[point], trials=cell.trials)
    return Line(cell, tuple(trial.value for trial in found.trials))


def best_so_far(values: Sequence[float], count: int) -> np.ndarray:
    """float64 [count]: the least of the first 1, 2, ... values; a search that ended early keeps its
    best."""
    found = np.minimum.accumulate(np.array(values[:count], dtype=np.float64))
    return np.concatenate([found, np.full(count - len(found), found[-1])])


def summarised(
    lines: Sequence[Line], about: dict[str, Any], trials: int, counts: Sequence[int] = COUNTS
) -> dict[str, Any]:
    """One subject of a comparison, as it is written down and shown.

    about: ``name``, and ``best`` and ``uniform`` where they are known. Of every algorithm, with
    seeds and without: the mean, least and largest best-so-far over the draws after each evaluation,
    and its mean and standard deviation at some counts.
    """
    kinds = sorted({(line.cell.seeded, line.cell.algorithm) for line in lines})
    shown = [count for count in counts if count < trials] + [trials]
    algorithms = []
    for seeded, name in kinds:
        found = [
            line.values
            for line in lines
            if (line.cell.seeded, line.cell.algorithm) == (seeded, name)
        ]
        curves = np.array([best_so_far(values, trials) for values in found])
        spread = curves.std(0, ddof=1) if len(curves) > 1 else np.zeros(trials)
        algorithms.append({
            "name": name, "seeded": seeded, "draws": len(curves),
            "evaluations": [len(values) for values in found],
            "mean": curves.mean(0).tolist(), "least": curves.min(0).tolist(),
            "largest": curves.max(0).tolist(),
            "at": {
                str(n): {"mean": float(curves[:, n - 1].mean()), "deviation": float(spread[n - 1])}
                for n in shown
            },
        })  # fmt: skip
    return {**about, "trials": trials, "algorithms": algorithms}

"""Searches whose every answer is known: to compare algorithms at no cost.

Three are drawn from a seed: groups that lose by what leaves of them, under one limit of a cost that
adds up. In ``additive`` the table that a search is told is exact; in ``crossed`` groups also lose
together; in ``deceptive`` the table's losses stand at the wrong groups and each pair of groups has
ups and downs of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from secateur.errors import InputError
from secateur.registry import unknown
from secateur.searching import Discrete, Point, Problem, Space

GROUPS, LEVELS, LIMIT = 8, 6, 0.5
CROSSING = 0.8  # of what two groups lose together, beside what one loses alone
BUMPS = 0.15  # of the ups and downs of a pair
LANDSCAPES = ("additive", "crossed", "deceptive")


@dataclass(frozen=True, eq=False)
class Landscape:
    """All points that a search can come to, and their values.

    points: int [n, groups], numbers of levels, 0 where nothing leaves: those that keep the limit
    and of which no group could be one level wider. values: float64 [n]. table: group -> the loss
    that a search is told for each of its levels. cost: of any point, in shares of the limit.
    """

    name: str
    points: np.ndarray
    values: np.ndarray
    table: Mapping[str, Sequence[float]]
    cost: Callable[[Point], float] | None = None

    @property
    def best(self) -> float:
        """The least value."""
        return float(self.values.min())

    def value(self, point: Point) -> float:
        """Of one of the points. Errors: InputError for any other."""
        found = np.flatnonzero((self.points == np.array(point)).all(1))
        if not len(found):
            raise InputError(f"{point} is not a point of the landscape {self.name!r}")
        return float(self.values[found[0]])

    def problem(self, seeded: bool) -> Problem:
        """What a search is told; seeded: with the table's answer and ``uniform`` to begin with."""
        space = Space(tuple(Discrete(n, tuple(range(len(x)))) for n, x in self.table.items()))
        answer = self.solve(dict.fromkeys(self.table, 1.0))
        seeds = tuple(dict.fromkeys((answer, self.uniform())))
        return Problem(
            space, self.repair, seeds if seeded else (), self.table, self.solve, cost=self.cost
        )

    def repair(self, point: Point) -> Point:
        """The nearest one, in levels."""
        points, squares = self._places  # small whole numbers: exact
        return self._at(int((squares - 2 * points @ np.array(point, np.float32)).argmin()))

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        points = self.points.astype(np.float32)
        return points, (points**2).sum(1)

    def solve(self, weights: Mapping[str, float]) -> Point:
        """The point of least weighted loss in the table."""
        return self._at(int(self._losses(weights).argmin()))

    def uniform(self) -> Point:
        """The least level that all groups can have, what is left given back by the table."""
        level = int(self.points.max(1).min())
        inside = np.flatnonzero((self.points <= level).all(1))
        return self._at(int(inside[self._losses(dict.fromkeys(self.table, 1.0))[inside].argmin()]))

    def _losses(self, weights: Mapping[str, float]) -> np.ndarray:
        pairs = enumerate(self.table.items())
        return np.sum([weights[n] * np.array(x)[self.points[:, at]] for at, (n, x) in pairs], 0)

    def _at(self, number: int) -> Point:
        return tuple(map(int, self.points[number]))


def landscape(name: str, seed: int = 0, groups: int = GROUPS, levels: int = LEVELS) -> Landscape:
    """One of ``LANDSCAPES``. Errors: InputError for other names."""
    if name not in LANDSCAPES:
        raise InputError(unknown("landscape", name, LANDSCAPES))
    drawn = np.random.default_rng(seed)
    gone = np.arange(levels) / levels
    left = 1 - gone
    weights = drawn.random(groups) + 0.2
    heights, powers = drawn.exponential(size=groups), 1.5 + 2 * drawn.random(groups)
    single = heights[:, None] * gone ** powers[:, None]
    pair = np.zeros((groups, groups, levels, levels))
    table = single
    if name == "crossed":
        strength = CROSSING * np.abs(drawn.standard_normal((groups, groups)))
        pair += strength[:, :, None, None] * np.multiply.outer(gone**2, gone**2)
    elif name == "deceptive":
        pair += BUMPS * np.abs(drawn.standard_normal(pair.shape))
        table = np.roll(single, 1, axis=0)
    weights = weights / weights.sum()
    points = tight(weights, levels, LIMIT)
    values = single[np.arange(groups), points].sum(1)
    for first in range(groups):
        for second in range(first):
            values += pair[first, second, points[:, first], points[:, second]]
    told = {f"group {n}": row.tolist() for n, row in enumerate(table)}
    return Landscape(name, points, values, told, lambda at: float(weights @ left[list(at)]) / LIMIT)


def tight(weights: np.ndarray, levels: int, limit: float) -> np.ndarray:
    """int [n, groups]: choices that keep the limit where no group could be one level wider.

    weights: float64 [groups], what a whole group costs; at level l it costs (1 - l / levels) of it.
    """
    groups = len(weights)
    left = 1 - np.arange(levels) / levels
    costs = np.zeros((levels,) * groups)
    for axis, weight in enumerate(weights):
        costs = costs + (weight * left).reshape([-1 if n == axis else 1 for n in range(groups)])
    kept = holds = costs <= limit + 1e-12
    for axis in range(groups):
        wider = np.zeros_like(holds)
        np.swapaxes(wider, 0, axis)[1:] = np.swapaxes(holds, 0, axis)[:-1]
        kept = kept & ~wider
    return np.argwhere(kept)

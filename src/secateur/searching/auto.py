"""The default: the table's own answers, then what a model of the values takes to be best."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from secateur.searching import Discrete, Point, Problem, Wait, algorithm
from secateur.searching._surrogate import Rows, Surrogate
from secateur.searching.annealing import Annealing

FIRST, FURTHER = 40, 12  # points that the model judges: at the start, and more with each trial
REACH = 0.4  # share of a parameter's values that a move may go
BASES = 4  # of the best points, moves start from
REPAIRS = 3  # times as many points are repaired as are wanted, at most


@algorithm("auto")
class Auto:
    """The seeds, then the points of most expected improvement, near the best ones.

    A Gaussian process over what the table says of points and over their widths (``_surrogate.py``)
    judges a pool of points that grows by moves from the best: width goes from some groups to
    others. Expected improvement is due to Mockus, 1978. Without a table it is annealing.
    """

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        problem.refuse_several("auto")
        self._problem, self._waiting = problem, list(problem.seeds)
        self._generator = np.random.default_rng(seed)
        self._moves = Annealing(problem, seed, trials) if problem.table is None else None
        self._asked: set[Point] = set()
        self._told: dict[Point, float] = {}
        self._pool: dict[Point, Rows] = {}

    def ask(self) -> Point | Wait | None:
        """The next point."""
        if self._moves is not None:
            return self._moves.ask()
        if self._waiting:
            point = self._waiting.pop(0)
        else:
            self._grow()
            waiting = [point for point in self._pool if point not in self._asked]
            if not waiting:
                return self._problem.space.sample(self._generator)
            point = waiting[self._chosen(waiting)]
        self._asked.add(point)
        return point

    def _grow(self) -> None:
        """More points for the pool."""
        best = sorted(self._told, key=lambda point: self._told[point])[:BASES]
        wanted = FURTHER if self._pool else FIRST
        for _ in range(REPAIRS * wanted):
            if best:
                at = min(int(self._generator.exponential(BASES / 3)), len(best) - 1)
                raw = self._moved(best[at])
            else:
                raw = self._problem.space.sample(self._generator)
            point = self._problem.repair(self._problem.space.settled(raw))
            if point is None or point in self._pool:
                continue
            self._pool[point] = self._row(point)
            wanted -= 1
            if not wanted:
                return

    def _moved(self, point: Point) -> Point:
        """Some parameters less, others more."""
        values, count = list(point), len(point)
        number = min(count, 2 + int(self._generator.geometric(0.6) - 1))
        order = self._generator.permutation(count)[:number]
        for place, which in enumerate(order):
            parameter = self._problem.space.parameters[which]
            if not isinstance(parameter, Discrete) or not parameter.ordered:
                values[which] = parameter.near(values[which], REACH, self._generator)
                continue
            most = max(1, round(REACH * len(parameter.values)))
            step = int(self._generator.integers(1, most + 1)) * (1 if place % 2 else -1)
            here = parameter.values.index(values[which])
            values[which] = parameter.values[min(len(parameter.values) - 1, max(0, here + step))]
        return tuple(values)

    def _row(self, point: Point) -> Rows:
        space, table = self._problem.space, self._problem.table or {}
        losses = [
            table[p.name][p.values.index(value)]
            for p, value in zip(space.parameters, point, strict=True)
            if p.name in table and isinstance(p, Discrete)
        ]
        return Rows(space.encode(point)[None], np.array(losses)[None])

    def _chosen(self, points: Sequence[Point]) -> int:
        """The one of most expected improvement."""
        if not self._told:
            return int(self._generator.integers(len(points)))
        told = list(self._told)
        model = Surrogate(
            Rows.joined([self._pool.get(p) or self._row(p) for p in told]),
            np.array([self._told[point] for point in told]),
        )
        means, deviations = model.predict(Rows.joined([self._pool[p] for p in points]))
        least = model.scaled(min(self._told.values()))
        ahead = (least - means) / deviations
        density = np.exp(-0.5 * ahead**2) / math.sqrt(2 * math.pi)
        below = 0.5 * (1 + np.vectorize(math.erf)(ahead / math.sqrt(2)))
        return int((deviations * (ahead * below + density)).argmax())

    def tell(self, point: Point, values: Sequence[float]) -> None:
        """Learn."""
        (value,) = values
        self._asked.add(point)
        if self._moves is not None:
            self._moves.tell(point, values)
        elif math.isfinite(value):
            self._told[point] = value

"""The default: the table's own answers, then what a model of the values takes to be best."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from secateur.searching import Discrete, Point, Problem, Wait, algorithm
from secateur.searching._surrogate import Rows, Surrogate, Weighted
from secateur.searching.annealing import Annealing

ANYWHERE = 300  # random points that the model judges from the start
FIRST, FURTHER = 40, 12  # and near the best ones: at the start, and more with each trial
REACH = 0.4  # share of a parameter's values that a move may go
BASES = 4  # of the best points, moves start from
REPAIRS = 3  # times as many points are repaired as are wanted, at most
POOL = 700  # points that are kept; the least promising leave
AGAIN = 0.05  # more evaluations than at the last choice of mixtures ask for another one


@algorithm("auto")
class Auto:
    """The seeds, then the points of most expected improvement, near the best ones.

    A Gaussian process over what the table says of points and over their widths (``_surrogate.py``)
    judges random points and a pool that grows by moves from the best: width goes from some groups
    to others. Expected improvement is due to Mockus, 1978. Without a table it is annealing.
    """

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        problem.refuse_several("auto")
        self._problem, self._waiting = problem, list(problem.seeds)
        self._generator = np.random.default_rng(seed)
        self._moves = Annealing(problem, seed, trials) if problem.table is None else None
        self._asked: set[Point] = set()
        self._told: dict[Point, float] = {}
        self._pool: dict[Point, Rows] = {}
        self._mixtures: tuple[int, Weighted] | None = None  # and how many values chose them

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
            order = np.argsort(-self._promise(waiting), kind="stable")
            point = waiting[order[0]]
            for place in order[POOL:]:
                del self._pool[waiting[place]]
        self._asked.add(point)
        return point

    def _grow(self) -> None:
        """More points for the pool."""
        best = sorted(self._told, key=lambda point: self._told[point])[:BASES]
        wanted = FURTHER
        if not self._pool:
            wanted = FIRST
            for _ in range(ANYWHERE):
                self._add(self._problem.space.sample(self._generator))
        for _ in range(REPAIRS * wanted):
            if best:
                at = min(int(self._generator.exponential(BASES / 3)), len(best) - 1)
                wanted -= self._add(self._moved(best[at]))
            else:
                wanted -= self._add(self._problem.space.sample(self._generator))
            if not wanted:
                return

    def _add(self, raw: Point) -> bool:
        """Whether a point is new to the pool, where it stands after its repair."""
        point = self._problem.repair(self._problem.space.settled(raw))
        if point is None or point in self._pool:
            return False
        self._pool[point] = self._row(point)
        return True

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
        losses, gone = [], []
        for parameter, value in zip(space.parameters, point, strict=True):
            if parameter.name in table and isinstance(parameter, Discrete):
                told, at = table[parameter.name], parameter.values.index(value)
                way = at / max(1, len(told) - 1)
                losses.append(told[at])
                gone.append(way if told[-1] >= told[0] else 1 - way)
        return Rows(space.encode(point)[None], np.array([losses]), np.array([gone]))

    def _promise(self, points: Sequence[Point]) -> np.ndarray:
        """float64 [points]: the improvement to expect of each."""
        if not self._told:
            return self._generator.random(len(points))
        told = Rows.joined([self._pool.get(point) or self._row(point) for point in self._told])
        rows = Rows.joined([self._pool[point] for point in points])
        known = self._mixtures
        if known is not None and len(self._told) > (1 + AGAIN) * known[0]:
            known = None
        values = np.array(list(self._told.values()))
        model = Surrogate(told, values, rows, known[1] if known is not None else None)
        if known is None:
            self._mixtures = len(values), model.mixtures
        return model.improvement(rows, float(values.min()))

    def tell(self, point: Point, values: Sequence[float]) -> None:
        """Learn."""
        (value,) = values
        self._asked.add(point)
        if self._moves is not None:
            self._moves.tell(point, values)
        elif math.isfinite(value):
            self._told[point] = value

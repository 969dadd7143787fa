"""The default: the table's own answers, then other weights of its losses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from secateur.errors import InputError
from secateur.searching import Discrete, Point, Problem, Wait, algorithm
from secateur.searching.annealing import Annealing

PRIOR = 0.6  # deviation of a weight from 1, before anything is known
LEAST = 0.05  # of a weight
SHARE = 0.3  # of the weights that are drawn; the others are at what is believed of them
EXCHANGE = 0.6  # of the trials, after which single widths are moved


@algorithm("auto")
class Auto:
    """The seeds, then points that solve the table under other weights of its losses, then small
    moves around the best (annealing).

    Weights are drawn from what the values so far say of them: a linear model of the value in the
    losses of the table, with weights around 1 (Thompson, 1933). Searching weights of the table
    and not points is due to SPDY (Frantar and Alistarh, 2022). Without a table it is annealing.
    """

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        problem.refuse_several("auto")
        if problem.table is not None and problem.solve is None:
            raise InputError("a problem with a table needs to say how it is solved")
        self._problem, self._waiting = problem, list(problem.seeds)
        self._generator = np.random.default_rng(seed)
        self._trials, self._told = max(trials, 2), 0
        self._names = list(problem.table or ())
        self._seen: list[tuple[np.ndarray, float]] = []
        self._asked: set[Point] = set(problem.seeds)
        self._best: tuple[Point, float] | None = None
        self._moves: Annealing | None = None
        self._seed = seed

    def ask(self) -> Point | Wait | None:
        """The next point."""
        if self._waiting:
            return self._waiting.pop(0)
        progress = self._told / self._trials
        if self._names and self._problem.solve is not None and progress < EXCHANGE:
            for attempt in range(20):  # other weights often give the same point
                point = self._problem.solve(self._weights(1 + attempt / 4))
                if point is not None and point not in self._asked:
                    self._asked.add(point)
                    return point
        if self._moves is None:
            seeds = [self._best[0]] if self._best else self._problem.seeds
            cold = Problem(self._problem.space, self._problem.repair, seeds)
            self._moves = Annealing(cold, self._seed, max(2, self._trials - self._told))
            if self._best is not None:
                self._moves.ask()
                self._moves.tell(self._best[0], (self._best[1],))
        return self._moves.ask()

    def _weights(self, spread: float) -> dict[str, float]:
        """Drawn from the posterior of the linear model, its deviations times ``spread``."""
        count = len(self._names)
        mean, half = np.ones(count), PRIOR * np.eye(count)
        if len(self._seen) > 1:
            features = np.array([row for row, _ in self._seen])
            values = np.array([value for _, value in self._seen])
            gap = values - features.sum(1)  # what the table does not say, one number aside
            gap, centred = gap - gap.mean(), features - features.mean(0)
            noise = max(float(gap.var()) / 4, 1e-12)
            precision = np.eye(count) / PRIOR**2 + centred.T @ centred / noise
            covariance = np.linalg.inv(precision)
            mean = 1 + covariance @ centred.T @ gap / noise
            half = np.linalg.cholesky((covariance + covariance.T) / 2)
        chosen = self._generator.random(count) < SHARE
        chosen[self._generator.integers(count)] = True
        drawn = mean + spread * chosen * (half @ self._generator.standard_normal(count))
        return dict(zip(self._names, np.maximum(drawn, LEAST).tolist(), strict=True))

    def _losses(self, point: Point) -> np.ndarray:
        table, losses = self._problem.table or {}, []
        for parameter, value in zip(self._problem.space.parameters, point, strict=True):
            if parameter.name in table and isinstance(parameter, Discrete):
                losses.append(table[parameter.name][parameter.values.index(value)])
        return np.array(losses)

    def tell(self, point: Point, values: Sequence[float]) -> None:
        """Learn."""
        (value,) = values
        self._told += 1
        if self._moves is not None:
            self._moves.tell(point, values)
        if not math.isfinite(value):
            return
        self._seen.append((self._losses(point), value))
        if self._best is None or value < self._best[1]:
            self._best = point, value

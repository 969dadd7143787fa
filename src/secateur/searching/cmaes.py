"""Covariance matrix adaptation."""

from __future__ import annotations

import math

import numpy as np

from secateur.errors import InputError
from secateur.searching import Point, Problem, algorithm

SIGMA = 0.2  # of the first generation, in shares of a parameter's range


@algorithm("cmaes")
class CmaEs:
    """A normal distribution that moves to where points are good (Hansen and Ostermeier, 2001).

    That of the library cmaes, begun at the first seed. It learns the places that it asked for,
    with the values of their repaired points.
    """

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        try:
            from cmaes import CMA
        except ImportError as error:
            raise InputError("the search 'cmaes' needs cmaes; install secateur[search]") from error
        count = len(problem.space.parameters)
        self._space = problem.space
        self._waiting = list(problem.seeds)
        begin = problem.space.encode(problem.seeds[0]) if problem.seeds else np.full(count, 0.5)
        bounds = np.column_stack([np.zeros(count), np.ones(count)])
        size = max(4, min(4 + int(3 * math.log(max(count, 2))), trials // 4))
        self._theirs = CMA(begin, SIGMA, bounds=bounds, seed=seed, population_size=size)
        self._asked: list[np.ndarray] = []
        self._told: list[tuple[np.ndarray, float]] = []

    def ask(self) -> Point | None:
        """A seed, or the next of its generation."""
        if self._waiting:
            return self._waiting.pop(0)
        self._asked.append(self._theirs.ask())
        return self._space.decode(np.clip(self._asked[-1], 0, 1 - 1e-9))

    def tell(self, point: Point, value: float) -> None:
        """Of its generation, in the order in which it was asked for."""
        if not self._asked:
            return
        self._told.append((self._asked.pop(0), value))
        if len(self._told) < self._theirs.population_size:
            return
        worst = max((v for _, v in self._told if math.isfinite(v)), default=1.0)
        lost = worst + abs(worst) + 1.0
        self._theirs.tell([(x, v if math.isfinite(v) else lost) for x, v in self._told])
        self._told = []

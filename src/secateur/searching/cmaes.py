"""Covariance matrix adaptation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from secateur.errors import InputError
from secateur.searching import WAIT, Point, Problem, Wait, algorithm
from secateur.searching._failures import worse_than_all

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
        problem.refuse_several("cmaes")
        count = len(problem.space.parameters)
        self._space = problem.space
        self._waiting = list(problem.seeds)
        begin = problem.space.encode(problem.seeds[0]) if problem.seeds else np.full(count, 0.5)
        bounds = np.column_stack([np.zeros(count), np.ones(count)])
        size = max(4, min(4 + int(3 * math.log(max(count, 2))), trials // 4))
        self._theirs = CMA(begin, SIGMA, bounds=bounds, seed=seed, population_size=size)
        self._seeds = 0  # that were asked for and not told yet
        self._generation: list[np.ndarray] = []
        self._told: list[Sequence[float]] = []

    def ask(self) -> Point | Wait | None:
        """A seed, or the next of its generation."""
        if self._waiting:
            self._seeds += 1
            return self._waiting.pop(0)
        if len(self._generation) == self._theirs.population_size:
            return WAIT
        self._generation.append(self._theirs.ask())
        return self._space.decode(np.clip(self._generation[-1], 0, 1 - 1e-9))

    def tell(self, point: Point, values: Sequence[float]) -> None:
        """Of its generation, in the order in which it was asked for."""
        if self._seeds:
            self._seeds -= 1
            return
        if len(self._told) == len(self._generation):  # it did not ask for this one
            return
        self._told.append(values)
        if len(self._told) < self._theirs.population_size:
            return
        found = worse_than_all(self._told)[:, 0].tolist()
        self._theirs.tell(list(zip(self._generation, found, strict=True)))
        self._generation, self._told = [], []

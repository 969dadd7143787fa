"""Simulated annealing: small moves, and now and then one for the worse."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np

from secateur.searching import Point, Problem, algorithm

FIRST, LAST = 0.5, 0.01  # temperature at the start and the end, in typical changes of the value
REACH = (0.25, 0.04)  # share of a parameter's values that a move may go, at the start and the end
ALONE = 0.3  # of the moves change one parameter; the others take from one and give to another


@algorithm("annealing")
class Annealing:
    """Kirkpatrick, Gelatt and Vecchi, 1983, from the best of the seeds.

    A move changes two parameters in opposite directions (width goes from one group to another) or
    one alone. Worse points are accepted with exp(-rise / temperature); the temperature falls
    geometrically over the trials, in units of the typical change between neighbours.
    """

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        problem.refuse_several("annealing")
        self._space, self._waiting = problem.space, list(problem.seeds)
        self._generator = np.random.default_rng(seed)
        self._trials = max(trials, 2)
        self._told = 0
        self._at: tuple[Point, float] | None = None
        self._changes: list[float] = []

    @property
    def _progress(self) -> float:
        return min(1.0, self._told / self._trials)

    def ask(self) -> Point | None:
        """A seed, or a neighbour of where it stands."""
        if self._waiting:
            return self._waiting.pop(0)
        if self._at is None:
            return self._space.sample(self._generator)
        reach = REACH[0] * (REACH[1] / REACH[0]) ** self._progress
        places = self._space.encode(self._at[0])
        values = list(self._at[0])
        order = self._generator.permutation(len(values))
        moved = order[:1] if self._generator.random() < ALONE else order[:2]
        for number in moved:
            parameter = self._space.parameters[number]
            values[number] = parameter.near(values[number], reach, self._generator)
        if len(moved) == 2:
            self._oppose(values, places, moved)
        return self._space.settled(tuple(values))

    def _oppose(self, values: list[object], places: np.ndarray, moved: np.ndarray) -> None:
        """Mirror the second change where both go the same way."""
        first, second = (int(n) for n in moved)
        new = self._space.encode(tuple(values))
        change = new - places
        if change[first] * change[second] > 0:
            mirrored = min(1 - 1e-9, max(0.0, places[second] - change[second]))
            values[second] = self._space.parameters[second].at(mirrored)

    def tell(self, point: Point, values: Sequence[float]) -> None:
        """Go there, or not."""
        (value,) = values
        self._told += 1
        if not math.isfinite(value):
            return
        if self._at is None:
            self._at = point, value
            return
        rise = value - self._at[1]
        if rise:
            self._changes.append(abs(rise))
        scale = statistics.median(self._changes) if self._changes else 1.0
        temperature = FIRST * (LAST / FIRST) ** self._progress * scale
        if rise <= 0 or self._generator.random() < math.exp(-rise / max(temperature, 1e-300)):
            self._at = point, value

"""An even grid over the space."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from secateur.searching import Discrete, Point, Problem, algorithm


@algorithm("grid")
class Grid:
    """The seeds, then all combinations of evenly spaced values, in an order drawn by the seed.

    As many values of each parameter as fit the trials, two at least; so in a space of many
    parameters only a part of the corners is seen.
    """

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        self._space, self._waiting = problem.space, list(problem.seeds)
        parameters = problem.space.parameters
        each = max(2, math.ceil(max(trials, 1) ** (1 / max(len(parameters), 1))))
        self._places = [
            np.linspace(0, 1, min(each, len(p.values)) if isinstance(p, Discrete) else each)
            for p in parameters
        ]
        self._generator = np.random.default_rng(seed)
        self._seen: set[tuple[int, ...]] = set()
        self._size = math.prod(len(places) for places in self._places)

    def ask(self) -> Point | None:
        """The next one; None after the last."""
        if self._waiting:
            return self._waiting.pop(0)
        if len(self._seen) >= self._size:
            return None
        while True:  # few of a large grid are drawn, and most of a small one soon
            cell = tuple(int(self._generator.integers(len(places))) for places in self._places)
            if cell not in self._seen:
                self._seen.add(cell)
                return self._space.decode(
                    [min(float(p[i]), 1 - 1e-9) for p, i in zip(self._places, cell, strict=True)]
                )

    def tell(self, point: Point, values: Sequence[float]) -> None:
        """It learns nothing."""

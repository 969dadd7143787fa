"""Random points: what every other algorithm has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secateur.searching import Point, Problem, algorithm


@algorithm("random")
class Random:
    """The seeds, then points drawn evenly over the space."""

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        self._space, self._waiting = problem.space, list(problem.seeds)
        self._generator = np.random.default_rng(seed)

    def ask(self) -> Point | None:
        """The next one."""
        return self._waiting.pop(0) if self._waiting else self._space.sample(self._generator)

    def tell(self, point: Point, values: Sequence[float]) -> None:
        """It learns nothing."""

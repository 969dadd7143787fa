"""A controller that learns by reward."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from secateur.searching import Discrete, Parameter, Point, Problem, algorithm

PLACES = 12  # that a parameter without levels may stand at
RATE = 0.6  # of learning
ENTROPY = 0.02  # what keeping several choices open is worth
MEMORY = 20  # rewards are compared with the last so many


@algorithm("reinforce")
class Reinforce:
    """The seeds, then points drawn by a controller that writes one value after the other.

    Each value is drawn given the one before; what was better than the last values becomes more
    likely (REINFORCE: Williams, 1992; as the controller of ENAS, Pham et al., 2018, with a table
    in place of its recurrent net, since there are few trials). It learns from points as they were
    repaired.
    """

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        problem.refuse_several("reinforce")
        self._space, self._waiting = problem.space, list(problem.seeds)
        self._generator = np.random.default_rng(seed)
        counts = [len(p.values) if isinstance(p, Discrete) else PLACES for p in self._parameters]
        before = [1, *counts[:-1]]
        self._own = [np.zeros(count) for count in counts]
        self._after = [np.zeros(shape) for shape in zip(before, counts, strict=True)]
        self._values: list[float] = []

    @property
    def _parameters(self) -> tuple[Parameter, ...]:
        return self._space.parameters

    def ask(self) -> Point | None:
        """A seed, or what the controller writes."""
        if self._waiting:
            return self._waiting.pop(0)
        places, last = [], 0
        for own, after in zip(self._own, self._after, strict=True):
            chances = _softmax(own + after[last])
            last = int(self._generator.choice(len(chances), p=chances))
            places.append((last + self._generator.random()) / len(chances))
        return self._space.decode(places)

    def tell(self, point: Point, values: Sequence[float]) -> None:
        """Make it more likely, or less."""
        (value,) = values
        known = [v for v in self._values[-MEMORY:] if math.isfinite(v)]
        self._values.append(value)
        if len(known) < 2:
            return
        spread = max(float(np.std(known)), 1e-12)
        reward = (float(np.mean(known)) - value) / spread if math.isfinite(value) else -1.0
        reward, last = float(np.clip(reward, -2, 2)), 0
        for number, place in enumerate(self._space.encode(point)):
            own, after = self._own[number], self._after[number]
            chances = _softmax(own + after[last])
            at = min(len(chances) - 1, int(place * len(chances)))
            upward = -reward * chances
            upward[at] += reward
            logs = np.log(np.maximum(chances, 1e-12))
            upward += ENTROPY * -chances * (logs - chances @ logs)
            own += RATE * upward
            after[last] += RATE * upward / 2
            last = at


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()

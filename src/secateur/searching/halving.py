"""Evolution in which cheap evaluations say who gets a full one."""

from __future__ import annotations

import math

import numpy as np

from secateur.searching import Partly, Point, Problem, Question, Space, algorithm
from secateur.searching._sequential import Sequential, Story

KEEP = 3  # one of so many goes on from a rung
WEIGHT, CROSS = 0.5, 0.5  # of a difference, and of parameters that come from the mutant
LEAST, LARGEST = 4, 12  # parents


@algorithm("halving")
class Halving(Sequential):
    """Differential evolution whose generations go through successive halving, after DEHB (Awad,
    Mallik and Hutter, 2021).

    A generation is judged by the cheapest evaluations that a problem has; the best third of it by
    the next ones, and so on, the last by full ones. Values of different shares are never compared:
    parents are the best of the full evaluations, then those that came furthest. A child is a parent
    moved towards the best and along a difference of two others, half of its parameters from there.
    Where a problem has no shares all evaluations are full ones.
    """

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        problem.refuse_several("halving")
        super().__init__(_story(problem, np.random.default_rng(seed), trials))


def _story(problem: Problem, generator: np.random.Generator, trials: int) -> Story:
    space, shares = problem.space, sorted(problem.shares)
    pool = _Pool(max(LEAST, min(LARGEST, trials // 6)))
    begin = list(problem.seeds) or [space.sample(generator)]
    pool.learn((yield begin), len(shares))
    size = KEEP ** len(shares) if shares else LEAST
    while True:
        children = [pool.child(space, generator) for _ in range(size)]
        for rung, share in enumerate(shares):
            asked: list[Question] = [Partly(child, share) for child in children]
            answers = yield asked
            pool.learn(answers, rung)
            answers = sorted(dict(answers).items(), key=lambda answer: answer[1])
            children = [point for point, _ in answers[: math.ceil(len(children) / KEEP)]]
        pool.learn((yield children), len(shares))


class _Pool:
    """Points by how far they came and, among those that came as far, by their values there."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._at: dict[Point, tuple[int, float]] = {}

    def learn(self, answers: list[tuple[Point, float]], rung: int) -> None:
        """Values on a rung; what failed is no parent."""
        for point, value in answers:
            if math.isfinite(value) and self._at.get(point, (-1, 0.0))[0] <= rung:
                self._at[point] = rung, value

    def child(self, space: Space, generator: np.random.Generator) -> Point:
        """A new point; a random one as long as there are few parents."""
        parents = sorted(self._at, key=lambda point: (-self._at[point][0], self._at[point][1]))
        parents = parents[: self._size]
        if len(parents) < LEAST:
            return space.sample(generator)
        order = generator.permutation(len(parents))[:3]
        parent, one, other = (space.encode(parents[n]) for n in order)
        best = space.encode(parents[0])
        mutant = parent + WEIGHT * (best - parent) + WEIGHT * (one - other)
        taken = generator.random(len(mutant)) < CROSS
        taken[int(generator.integers(len(mutant)))] = True
        mutant += 0.02 * generator.standard_normal(len(mutant))
        places = np.where(taken, mutant, parent)
        places = np.abs(places)  # mirrored at the edges
        places = np.where(places > 1, 2 - places, places)
        child = space.decode(np.clip(places, 0, 1 - 1e-9))
        return child if child not in self._at else space.sample(generator)

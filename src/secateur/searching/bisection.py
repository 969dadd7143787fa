"""One number for all parameters."""

from __future__ import annotations

import math

from secateur.searching import Discrete, Problem, algorithm
from secateur.searching._sequential import Sequential, Story

GOLDEN = (math.sqrt(5) - 1) / 2
FINEST = 1 / 64  # of the range, where no parameter has levels


@algorithm("bisection")
class Bisection(Sequential):
    """The seeds, then equal places of all parameters, by golden section (Kiefer, 1953).

    It finds the best point of the one-parameter family as long as values fall to one side of it
    and rise to the other. Points that fail, as those that lose too much do, are left behind
    towards the first values. It draws nothing, and ends where the bracket is shorter than a level
    of any parameter.
    """

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        problem.refuse_several("bisection")
        super().__init__(_story(problem))


def _story(problem: Problem) -> Story:
    space = problem.space
    if problem.seeds:
        yield list(problem.seeds)
    levels = [len(p.values) for p in space.parameters if isinstance(p, Discrete)]
    finest = 1 / max(levels) if levels else FINEST
    low, high = 0.0, 1.0
    left, right = high - GOLDEN, low + GOLDEN
    values: dict[float, float] = {}
    while high - low > finest:
        for place in (left, right):
            if place not in values:
                ((_, values[place]),) = yield [space.decode([place] * len(space.parameters))]
        better, worse = values[right], values[left]
        # On the left, what is repaired is alike: of equal values the right one counts.
        if better < worse or (better == worse and math.isfinite(better)):
            low, left = left, right
            right = low + GOLDEN * (high - low)
        else:
            high, right = right, left
            left = high - GOLDEN * (high - low)

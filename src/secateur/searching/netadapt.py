"""A budget that falls step by step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from secateur.searching import Discrete, Point, Problem, algorithm
from secateur.searching._sequential import Sequential, Story


@algorithm("netadapt")
class NetAdapt(Sequential):
    """NetAdapt (Yang et al., 2018): from nothing removed, each step asks of every group in turn to
    bring the cost down by the step alone, and keeps what is best.

    A candidate that still costs too much is measured as its repair leaves it, with the rest of the
    way gone by the others; so no trial breaks a limit. Steps are as many as the trials pay for.
    Where a problem does not say what points cost, all levels of a group count the same. Parameters
    without an order stay where the best seed has them. It draws nothing, and ends where the limits
    hold.
    """

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        problem.refuse_several("netadapt")
        super().__init__(_story(problem, trials))


def _story(problem: Problem, trials: int) -> Story:
    space = problem.space
    groups = [
        number
        for number, parameter in enumerate(space.parameters)
        if isinstance(parameter, Discrete) and parameter.ordered
    ]
    point = space.settled(tuple(parameter.first for parameter in space.parameters))
    if problem.seeds:
        answers = yield list(problem.seeds)
        best = min(answers, key=lambda answer: answer[1])[0]
        point = tuple(
            point[number] if number in groups else value for number, value in enumerate(best)
        )

    def cost(at: Point) -> float:
        if problem.cost is not None:
            return problem.cost(at)
        return 2 - float(np.mean(space.encode(at)[groups]))  # 1 where nothing is left

    steps = max(1, (trials - len(problem.seeds)) // max(1, len(groups)))
    step = (cost(point) - 1) / steps
    while groups and cost(point) > 1:
        limit = cost(point) - step
        narrowed = [_narrowed(problem, point, number, cost, limit) for number in groups]
        candidates = [candidate for candidate in narrowed if candidate is not None]
        if not candidates:
            return
        answers = yield candidates
        point = candidates[int(np.argmin([value for _, value in answers]))]


def _narrowed(
    problem: Problem, point: Point, number: int, cost: Callable[[Point], float], limit: float
) -> Point | None:
    """The first level of a group at which the limit holds, or its last one; None where it stands
    there."""
    parameter = problem.space.parameters[number]
    assert isinstance(parameter, Discrete)
    found = None
    for value in parameter.values[parameter.values.index(point[number]) + 1 :]:
        found = (*point[:number], value, *point[number + 1 :])
        if cost(found) <= limit + 1e-12:
            break
    return found

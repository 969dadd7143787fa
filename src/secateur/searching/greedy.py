"""Each parameter alone, then what helped together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from secateur.searching import Discrete, Point, Problem, Space, algorithm
from secateur.searching._sequential import Answer, Sequential, Story

REACH = 0.3  # of a parameter's range: the first moves; they halve where none helps
SHORTEST = 0.01  # of the range, for parameters without levels


class _Move(NamedTuple):
    """One parameter by some share of its range, and by how much the value fell."""

    gain: float
    number: int
    change: float


@algorithm("greedy")
class Greedy(Sequential):
    """From the best seed: how much each parameter alone changes the value, up and down; then the
    moves that helped, all together, then half of them, and so on. Where none helps, moves halve.

    A point is measured as its repair leaves it, so that a move is paid for by the other
    parameters. A pattern search (Hooke and Jeeves, 1961). It ends where no move is left.
    """

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        problem.refuse_several("greedy")
        super().__init__(_story(problem, np.random.default_rng(seed)))


def _story(problem: Problem, generator: np.random.Generator) -> Story:
    space = problem.space
    begin = list(problem.seeds) or [space.decode([0.5] * len(space.parameters))]
    base = _best((yield begin), None)
    reach = REACH
    least = min(_least(space, number) for number in range(len(space.parameters)))
    while reach >= least / 2:
        moves = [
            _Move(0.0, int(number), sign * max(reach, _least(space, number)))
            for number in generator.permutation(len(space.parameters))
            for sign in (1, -1)
        ]
        points = [_moved(space, base[0], [move]) for move in moves]
        answers = yield points
        helped = [
            move._replace(gain=base[1] - value)
            for move, (_, value) in zip(moves, answers, strict=True)
            if value < base[1]
        ]
        found = _best(answers, base)
        chosen: dict[int, _Move] = {}
        for move in sorted(helped, reverse=True):  # up or down, and not both
            chosen.setdefault(move.number, move)
        together = list(chosen.values())
        while len(together) > 1:
            found = _best((yield [_moved(space, base[0], together)]), found)
            together = together[: len(together) // 2]
        if not helped:
            reach /= 2
        base = found


def _best(answers: list[Answer], before: Answer | None) -> Answer:
    found = [before, *answers] if before is not None else answers
    return min(found, key=lambda answer: answer[1])


def _least(space: Space, number: int) -> float:
    """The shortest move of a parameter."""
    parameter = space.parameters[number]
    return 1 / len(parameter.values) if isinstance(parameter, Discrete) else SHORTEST


def _moved(space: Space, point: Point, moves: list[_Move]) -> Point:
    """An unordered parameter goes to one of the values beside it, round and round."""
    places = space.encode(point)
    for _, number, change in moves:
        parameter = space.parameters[number]
        if isinstance(parameter, Discrete) and not parameter.ordered:
            places[number] = (places[number] + np.sign(change) / len(parameter.values)) % 1
        else:
            places[number] += change
    return space.decode(np.clip(places, 0, 1 - 1e-9))

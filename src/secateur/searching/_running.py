"""Ask, repair, evaluate, tell: the loop that all algorithms share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from secateur.errors import InputError
from secateur.searching import Algorithm
from secateur.searching._problem import Problem
from secateur.searching._space import Point

ASKED = 30  # times the trials: questions whose answers are known already come to an end


@dataclass(frozen=True)
class Evaluation:
    """What a point was worth. value: infinite where it failed, and then ``error`` says why."""

    point: Point
    value: float
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class Found:
    """All evaluations in their order, and the best of them.

    asked: how many points were asked for: others were known, or could not be repaired.
    """

    trials: tuple[Evaluation, ...]
    best: Evaluation
    asked: int


def run_search(
    problem: Problem,
    algorithm: Algorithm,
    evaluate: Callable[[Point], float],
    *,
    trials: int,
    seconds: float = math.inf,
    known: Mapping[Point, Evaluation] | None = None,
    tell: Callable[[int, Evaluation], None] = lambda number, trial: None,
) -> Found:
    """The best point that an algorithm finds within some evaluations.

    evaluate: a point that keeps the constraints -> its value; what it raises of Exception is a
    failed trial, and so is a value that is not a number. trials: evaluations at most, those of
    ``known`` counted; a point that comes again is not evaluated again and does not count.
    seconds: no evaluation begins that would likely bring their sum above this. known: evaluations
    of an earlier run of the same search, which are believed.
    Errors: InputError where no point keeps the constraints, or all trials failed.
    """
    if trials < 1:
        raise InputError(f"trials is {trials}; give at least 1")
    done: dict[Point, Evaluation] = {}
    asked = 0
    while len(done) < trials and asked < ASKED * trials:
        point = algorithm.ask()
        if point is None:
            break
        asked += 1
        repaired = problem.repair(problem.space.settled(point))
        if repaired is None:
            algorithm.tell(point, math.inf)
            continue
        if repaired not in done:
            found = (known or {}).get(repaired)
            if found is None:
                spent = [trial.seconds for trial in done.values()]
                if sum(spent) + max(spent, default=0.0) > seconds and spent:
                    break
                found = _evaluated(evaluate, repaired)
            done[repaired] = found
            tell(len(done), found)
        algorithm.tell(repaired, done[repaired].value)
    if not done:
        raise InputError("no point of the search space keeps the constraints")
    best = min(done.values(), key=lambda trial: trial.value)
    if not math.isfinite(best.value):
        raise InputError(f"all {len(done)} trials failed; the last: {best.error}")
    return Found(tuple(done.values()), best, asked)


def _evaluated(evaluate: Callable[[Point], float], point: Point) -> Evaluation:
    begun = time.perf_counter()
    try:
        value = float(evaluate(point))
        error = "" if math.isfinite(value) else f"the value is {value}"
    except Exception as failure:  # an evaluation may be a user's: it is a failed trial
        value, error = math.inf, f"{type(failure).__name__}: {failure}"
    seconds = time.perf_counter() - begun
    return Evaluation(point, value if not error else math.inf, seconds, error)

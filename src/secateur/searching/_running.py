"""Ask, repair, evaluate, tell: the loop that all algorithms share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from secateur.errors import InputError
from secateur.searching import Algorithm, Wait
from secateur.searching._front import nondominated
from secateur.searching._problem import Problem
from secateur.searching._space import Point

ASKED = 30  # times the trials: questions whose answers are known already come to an end


@dataclass(frozen=True)
class Evaluation:
    """What a point was worth, in each objective; infinite where it failed: ``error`` says why."""

    point: Point
    values: tuple[float, ...]
    seconds: float
    error: str = ""

    @property
    def value(self) -> float:
        """In the first objective."""
        return self.values[0]


@dataclass(frozen=True)
class Found:
    """All evaluations in their order, and the best of them in the first objective.

    asked: how many points were asked for: others were known, or could not be repaired.
    """

    trials: tuple[Evaluation, ...]
    best: Evaluation
    asked: int

    @property
    def front(self) -> tuple[Evaluation, ...]:
        """Those of which none is better in all objectives, by their first value."""
        kept = nondominated([trial.values for trial in self.trials])
        front = [trial for trial, keep in zip(self.trials, kept, strict=True) if keep]
        return tuple(sorted(front, key=lambda trial: trial.values))


def run_search(
    problem: Problem,
    algorithm: Algorithm,
    evaluate: Callable[[Point], float | Sequence[float]],
    *,
    trials: int,
    seconds: float = math.inf,
    known: Mapping[Point, Evaluation] | None = None,
    tell: Callable[[int, Evaluation], None] = lambda number, trial: None,
) -> Found:
    """The best point that an algorithm finds within some evaluations.

    evaluate: a point that keeps the constraints -> its value, or one for each objective; what it
    raises of Exception is a failed trial, and so is a value that is not a number. trials:
    evaluations at most, those of ``known`` counted; a point that comes again is not evaluated
    again and does not count. seconds: no evaluation begins that would likely bring their sum above
    this. known: evaluations of an earlier run of the same search, which are believed.
    Errors: InputError where no point keeps the constraints, or all trials failed.
    """
    if trials < 1:
        raise InputError(f"trials is {trials}; give at least 1")
    done: dict[Point, Evaluation] = {}
    lost = (math.inf,) * problem.objectives
    asked = 0
    while len(done) < trials and asked < ASKED * trials:
        point = algorithm.ask()
        if point is None:
            break
        assert not isinstance(point, Wait), "all answers were given"
        asked += 1
        repaired = problem.repair(problem.space.settled(point))
        if repaired is None:
            algorithm.tell(point, lost)
            continue
        if repaired not in done:
            found = (known or {}).get(repaired)
            if found is None:
                spent = [trial.seconds for trial in done.values()]
                if sum(spent) + max(spent, default=0.0) > seconds and spent:
                    break
                found = evaluated(evaluate, repaired, problem.objectives)
            done[repaired] = found
            tell(len(done), found)
        algorithm.tell(repaired, done[repaired].values)
    if not done:
        raise InputError("no point of the search space keeps the constraints")
    best = min(done.values(), key=lambda trial: trial.value)
    if not math.isfinite(best.value):
        raise InputError(f"all {len(done)} trials failed; the last: {best.error}")
    return Found(tuple(done.values()), best, asked)


def evaluated(
    evaluate: Callable[[Point], float | Sequence[float]], point: Point, objectives: int = 1
) -> Evaluation:
    """What a point is worth; never raises an Exception: that is a failed trial."""
    begun = time.perf_counter()
    values: tuple[float, ...] = ()
    try:
        found = evaluate(point)
        values = tuple(map(float, found)) if isinstance(found, Sequence) else (float(found),)
        error = _complaint(values, objectives)
    except Exception as failure:  # an evaluation may be a user's
        error = f"{type(failure).__name__}: {failure}"
    seconds = time.perf_counter() - begun
    return Evaluation(point, (math.inf,) * objectives if error else values, seconds, error)


def _complaint(values: tuple[float, ...], objectives: int) -> str:
    if len(values) != objectives:
        return f"{len(values)} values were given for {objectives} objectives"
    if all(map(math.isfinite, values)):
        return ""
    return f"the value is {values[0] if objectives == 1 else values}"

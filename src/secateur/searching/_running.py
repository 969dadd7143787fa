"""Ask, repair, evaluate, tell: the loop that all algorithms share."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from secateur.errors import InputError
from secateur.searching import Algorithm, Wait
from secateur.searching._evaluation import Engine, Evaluate, Evaluation, Here
from secateur.searching._front import nondominated
from secateur.searching._problem import Problem
from secateur.searching._space import Partly, Point, Question, Real, Space, asked

DIGITS = 9  # by which numbers of two points are told apart: the rest is rounding
ROUNDING = 1e-9  # of sums of shares
ASKED = 30  # times the trials: questions whose answers are known already come to an end


@dataclass(frozen=True)
class Found:
    """All full evaluations in their order, and the best of them in the first objective.

    asked: how many points were asked for: others were known, or could not be repaired. cheap:
    evaluations that took a share of a full one.
    """

    trials: tuple[Evaluation, ...]
    best: Evaluation
    asked: int
    cheap: tuple[Evaluation, ...] = ()

    @property
    def cost(self) -> float:
        """Of all evaluations, in full ones."""
        return len(self.trials) + sum(trial.share for trial in self.cheap)

    @property
    def front(self) -> tuple[Evaluation, ...]:
        """Those of which none is better in all objectives, by their first value."""
        kept = nondominated([trial.values for trial in self.trials])
        front = [trial for trial, keep in zip(self.trials, kept, strict=True) if keep]
        return tuple(sorted(front, key=lambda trial: trial.values))


def run_search(
    problem: Problem,
    algorithm: Algorithm,
    evaluate: Evaluate | Engine,
    *,
    trials: int,
    seconds: float = math.inf,
    known: Mapping[Any, Evaluation] | None = None,
    tell: Callable[[int, Evaluation], None] = lambda number, trial: None,
    parallel: int = 1,
) -> Found:
    """The best point that an algorithm finds within some evaluations.

    evaluate: a point that keeps the constraints -> its value, or one for each objective; what it
    raises of Exception is a failed trial, and so is a value that is not a number. Or an engine
    that evaluates points elsewhere. trials: evaluations at most, those of ``known`` counted, a
    cheap one by its share; a point that comes again, or one that differs from it by rounding
    alone, is not evaluated again and does not count.
    seconds: no evaluation begins that would likely bring their sum, divided by ``parallel``, above
    this. known: evaluations of an earlier run of the same search, by what was asked, which are
    believed.
    parallel: W points are under way at a time. Question n is asked when the answers to the
    questions 0 ... n - W were told, in their order, and no others (but for an algorithm that waits
    for more). So the trials depend on W alone, and not on who evaluates them, or how fast.
    Errors: InputError where no point keeps the constraints, or all trials failed.
    """
    for name, value in (("trials", trials), ("parallel", parallel)):
        if value < 1:
            raise InputError(f"{name} is {value}; give at least 1")
    engine = Here(evaluate, problem.objectives) if callable(evaluate) else evaluate
    space = problem.space
    believed = {_alike(space, question): trial for question, trial in (known or {}).items()}
    lost = (math.inf,) * problem.objectives
    begun: set[Question] = set()
    done: dict[Question, Evaluation] = {}
    refused: Point | None = None
    unanswered: deque[tuple[Question, Question | None]] = deque()
    count, cost = 0, 0.0

    def answer() -> None:
        question, repaired = unanswered.popleft()
        if repaired is None:
            algorithm.tell(question, lost)
            return
        place = _alike(space, repaired)
        if place not in done:
            done[place] = believed[place] if place in believed else engine.answer(repaired)
            units = sum(trial.share for trial in done.values())
            tell(max(1, int(units + ROUNDING)), done[place])
        algorithm.tell(repaired, done[place].values)

    while cost < trials and count < ASKED * trials:
        while len(unanswered) >= parallel:
            answer()
        point = algorithm.ask()
        while isinstance(point, Wait):
            assert unanswered, "an algorithm waits and all answers were given"
            answer()
            point = algorithm.ask()
        if point is None:
            break
        count += 1
        question = point
        point, share = asked(question)
        whole = problem.repair(space.settled(point))
        refused = point if whole is None else refused
        repaired = whole if whole is None or share == 1 else Partly(whole, share)
        place = None if repaired is None else _alike(space, repaired)
        if repaired is not None and place is not None and place not in begun:
            if cost + share > trials + ROUNDING:
                break
            if place not in believed:
                spent = [trial.seconds for trial in done.values()]
                if spent and sum(spent) / parallel + max(spent) > seconds:
                    break
                engine.begin(repaired)
            begun.add(place)
            cost += share
        unanswered.append((question, repaired))
    while unanswered:
        answer()
    if not done:
        why = "" if refused is None else problem.refusal(refused)
        raise InputError(f"no point of the search space keeps the constraints{why and f': {why}'}")
    full = tuple(trial for trial in done.values() if trial.share == 1)
    if not full:
        raise InputError(f"{trials} trials were too few for a full evaluation; give more")
    best = min(full, key=lambda trial: trial.value)
    if not math.isfinite(best.value):
        raise InputError(f"all {len(full)} trials failed; the last: {best.error}")
    return Found(full, best, count, tuple(trial for trial in done.values() if trial.share < 1))


def _alike(space: Space, question: Question) -> Question:
    """The question that stands for all which differ from it by rounding alone."""
    point, share = asked(question)
    pairs = zip(space.parameters, point, strict=True)
    rounded = tuple(
        float(f"{value:.{DIGITS}g}") if isinstance(parameter, Real) else value
        for parameter, value in pairs
    )
    return rounded if share == 1 else Partly(rounded, share)

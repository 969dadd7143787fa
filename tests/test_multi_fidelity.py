"""Searches whose cheap evaluations say who gets a full one, on a problem with a known bias."""

from __future__ import annotations

import math
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secateur.errors import InputError
from secateur.searching import ALGORITHMS, Discrete, Partly, Problem, Question, Space
from secateur.searching._crew import Crew
from secateur.searching._ledger import Ledger
from secateur.searching._running import Found, run_search
from secateur.searching._space import asked

SHARES = (1 / 9, 1 / 3)
SPACE = Space(tuple(Discrete(f"p{n}", tuple(range(12))) for n in range(6)))
GOAL = (2, 9, 5, 0, 7, 11)


def distance(point: tuple[int, ...]) -> float:
    return sum((a - b) ** 2 for a, b in zip(point, GOAL, strict=True)) / 100


class Biased:
    """``distance``, from which cheap evaluations are away: by a bias that keeps the order, and by
    noise that is fixed for each point."""

    def __init__(self, noise: float = 0.0, sign: float = 1.0) -> None:
        self.noise, self.sign = noise, sign
        self.questions: list[Question] = []

    def __call__(self, question: Question) -> float:
        self.questions.append(question)
        point, share = asked(question)
        if share == 1:
            return distance(point)
        drawn = np.random.default_rng([*point, round(share * 9)]).standard_normal()
        return self.sign * (5 + 2 * distance(point)) + self.noise * (1 - share) * drawn


def searched(evaluate: Biased, units: int, seed: int = 0, name: str = "halving", **more) -> Found:
    shares = SHARES if name == "halving" else ()
    problem = Problem(SPACE, shares=shares, seeds=more.pop("seeds", ()))
    algorithm = ALGORITHMS.get(name)(problem, seed, units)
    return run_search(problem, algorithm, evaluate, trials=units, **more)


def test_the_best_third_of_each_rung_goes_on():
    """The bias keeps the order, so that who is best is known: by brute force, at each rung."""
    evaluate = Biased()
    found = searched(evaluate, 30)
    runs = [
        (share, [asked(q)[0] for q in questions])
        for share, questions in groupby(evaluate.questions, key=lambda q: asked(q)[1])
    ]
    assert [share for share, _ in runs[:4]] == [1.0, SHARES[0], SHARES[1], 1.0]
    seen: set[tuple[int, ...]] = set()
    for (share, points), (_, promoted) in pairwise(runs):
        if share < 1:
            best = sorted(points, key=distance)[: len(promoted)]
            fresh = [point for point in best if point not in seen]
            assert set(fresh) <= set(promoted) and len(promoted) <= math.ceil(len(points) / 3)
        else:
            seen |= set(points)
    assert {trial.point for trial in found.trials} == {
        asked(q)[0] for q in evaluate.questions if asked(q)[1] == 1
    }


@pytest.mark.parametrize("units", [1, 5, 12, 40])
def test_evaluations_are_counted_in_full_ones(units):
    evaluate = Biased(noise=0.5)
    found = searched(evaluate, units)
    shares = [asked(question)[1] for question in evaluate.questions]
    assert found.cost == pytest.approx(sum(shares)) and found.cost <= units + 1e-9
    assert found.cost > units - 1 - 1e-9  # nothing is left that would have been enough
    assert len(found.trials) == shares.count(1.0) and len(found.cheap) == len(shares) - len(
        found.trials
    )
    assert found.best.value == min(map(distance, (t.point for t in found.trials)))
    if units >= 12:
        assert len(found.cheap) > 3 * len(found.trials)


def test_cheap_evaluations_that_mislead_cost_units_and_never_the_answer():
    """Cheap values that say the opposite: the answer is the best of the full ones all the same."""
    seeds = [(2, 9, 5, 0, 7, 9), (6,) * 6]
    found = searched(Biased(sign=-1.0), 20, seeds=seeds)
    assert found.trials[0].point == seeds[0]
    assert found.best.value <= distance(seeds[0])
    assert found.best.value == min(distance(t.point) for t in found.trials)


def test_it_finds_more_than_full_evaluations_alone_at_the_same_cost():
    def mean(name: str, noise: float = 0.3) -> float:
        return float(np.mean([
            searched(Biased(noise), 30, seed, name).best.value for seed in range(6)
        ]))  # fmt: skip

    assert mean("halving") < min(mean("differential"), mean("random"))


def test_a_search_with_shares_goes_on_where_it_was_cut_off(tmp_path):
    whole = searched(Biased(0.3), 20)
    ledger = Ledger(tmp_path, "study", SPACE)
    first = Biased(0.3)
    with Crew(ledger, first) as crew, pytest.raises(ZeroDivisionError):
        searched(_Stopping(crew, 25), 20)  # type: ignore[arg-type]
    known = Ledger(tmp_path, "study", SPACE).known()
    assert len(known) == 25 and sum(isinstance(question, Partly) for question in known) > 15
    assert all(known[question].question == question for question in known)
    again = Biased(0.3)
    with Crew(Ledger(tmp_path, "study", SPACE), again) as crew:
        found = searched(crew, 20, known=known)  # type: ignore[arg-type]
    assert [t.point for t in found.trials] == [t.point for t in whole.trials]
    assert [t.question for t in found.cheap] == [t.question for t in whole.cheap]
    assert not set(again.questions) & set(known)
    assert len(again.questions) == len(whole.trials) + len(whole.cheap) - 25


class _Stopping:
    """An engine that ends after some answers, as if it had been killed."""

    def __init__(self, engine: Any, answers: int) -> None:
        self.engine, self.left = engine, answers
        self.begin = engine.begin

    def answer(self, question: Question) -> Any:
        if not self.left:
            raise ZeroDivisionError
        self.left -= 1
        return self.engine.answer(question)


def test_too_few_units_are_said():
    class Cheap:
        def ask(self) -> Question:
            return Partly((0,) * 6, 0.5)

        def tell(self, point: Any, values: Any) -> None: ...

    with pytest.raises(InputError, match="too few for a full evaluation"):
        run_search(Problem(SPACE), Cheap(), Biased(), trials=1)


def test_names_of_files_tell_shares_apart(tmp_path: Path):
    from secateur.job.standings import name_of

    assert len({name_of(GOAL), name_of(Partly(GOAL, 0.5)), name_of(Partly(GOAL, 0.25))}) == 3

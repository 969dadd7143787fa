"""A search over recipes: which strategy of pruning serves best, under objectives and constraints.

Every trial is a recipe that is carried out and measured on the validation split; the best one is
carried out to its end, and the test split is looked at then, once.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from secateur.config import Recipe, SearchSection
from secateur.errors import BudgetError, InputError
from secateur.job import folders
from secateur.job.crews import crew_of
from secateur.job.listening import Listener, plain
from secateur.job.standings import Asking, name_of
from secateur.job.strategy_goals import Goals
from secateur.job.strategy_ladder import Outcome
from secateur.job.strategy_space import Strategies, strategies
from secateur.job.strategy_trials import Trials
from secateur.job.strategy_worker import (
    FOLDER,
    RecipesTried,
    goals_of,
    recipe_evaluation_of,
    recipes_tried,
    samples_of,
)
from secateur.job.studies import end_study, open_recipes
from secateur.job.working import threads, work_on
from secateur.journal import NAME as JOURNAL
from secateur.protocols import Subject
from secateur.searching import ALGORITHMS, Discrete, Point, Problem
from secateur.searching._evaluation import Evaluation
from secateur.searching._ledger import Ledger
from secateur.searching._running import Found, run_search

KEEP_DENSE = (
    "the dense model keeps all constraints, and no trial is better in any objective: pruning "
    "brings nothing here"
)
DEFAULT = ("tpe", "nsga2")  # of ``auto``: for one objective, and for several


def search_strategies(
    recipe: Recipe, subject: Subject, folder: Path, listener: Listener
) -> dict[str, Any]:
    """Search, then carry the best recipe out; returns its metrics document with the search in it.

    Errors: InputError, and BudgetError where no trial keeps the constraints.
    """
    section = recipe.search
    assert section is not None
    goals = goals_of(recipe)
    found = strategies(recipe, goals.budgets)
    objectives = len(goals.objectives)
    place = folder / FOLDER
    with folders.locked(folder), threads(recipe.threads):
        tried = recipes_tried(recipe, found, goals, subject, folder, listener)
        trials = tried.trials
        found = trials.strategies  # which know what the dense model costs
        ledger = open_recipes(recipe, folder, found.space, objectives, samples_of(subject))
        told = _Told(tried, ledger, listener)
        problem = Problem(
            found.space, found.repair, _seeds(found, section), objectives=objectives,
            refusal=found.refusal,
        )  # fmt: skip
        name = section.algorithm
        if name == "auto":
            name = DEFAULT[objectives > 1]
        listener.begin(FOLDER, section.trials)
        made = crew_of(section, folder, ledger, tried, recipe_evaluation_of, listener.say)
        with made as engine:
            result = run_search(
                problem, ALGORITHMS.get(name)(problem, recipe.seed, section.trials),
                Asking(engine, tried.standings),
                trials=section.trials, seconds=60 * section.minutes, known=told.known,
                tell=told.tell, parallel=section.window,
            )  # fmt: skip
        end_study(folder)
        trials.cuts.clear()
        best = told.best(result)
        listener.end(FOLDER, f"best of {len(result.trials)}: {_said(goals, told, best)}")
        if (read := told.read()) is not None:
            listener.say(f"{1 - read:.0%} of the validation answers were not needed")
        better = goals.better(told.outcomes[best.point].measures, trials.dense)
        if not better:
            listener.say(KEEP_DENSE)
        document = {"better": better} | _document(goals, found, trials, told, result, best, name)
        folders.write_json(place / "search.json", document)
        chosen = found.recipe(best.point).model_copy(update={"output": str(folder)})
        base = trials.base_of(chosen)
        _begin_as(base.folder, folder)
    return work_on(chosen, base.subject, folder, listener)


def check_search(recipe: Recipe) -> None:
    """Errors: InputError for a space or goals that cannot be."""
    if recipe.search is not None and recipe.search.space:
        strategies(recipe, goals_of(recipe).budgets)


class _Told:
    """What the algorithm is told of a search, and what was measured of it."""

    def __init__(self, tried: RecipesTried, ledger: Ledger, listener: Listener) -> None:
        self._tried, self.listener = tried, listener
        self.found, self.trials = tried.trials.strategies, tried.trials
        self.known = ledger.known()
        self.outcomes: dict[Point, Outcome] = {}
        tried.standings.open()

    def tell(self, number: int, evaluation: Evaluation) -> None:
        """Write it down, and say so."""
        point = evaluation.point
        name = name_of(point)
        outcome = None if evaluation.error else self._tried.outcome(point)
        if outcome is not None:
            self.outcomes[point] = outcome
        if name not in self._tried.standings.names():
            row = {
                "name": name,
                "overrides": self.found.overrides(point),
                "values": [v if math.isfinite(v) else None for v in evaluation.values],
                "seconds": evaluation.seconds,
                "error": evaluation.error,
                "outcome": None if outcome is None else plain(vars(outcome)),
            }
            self._tried.standings.tell(row)
        for place in self.trials.folder.glob(f"trial-{name}-*"):  # of a worker that was killed
            shutil.rmtree(place, ignore_errors=True)
        said = evaluation.error or ", ".join(
            f"{name} {value:.4g}" for name, value in (outcome.measures if outcome else {}).items()
        )
        self.listener.tick(FOLDER, number, said)

    def read(self) -> float | None:
        """The share of validation answers that was asked for, on the rungs that trials reached;
        None where they were all."""
        read = sum(outcome.read for outcome in self.outcomes.values())
        offered = sum(outcome.offered for outcome in self.outcomes.values())
        return read / offered if read < offered else None

    def kept(self, evaluation: Evaluation) -> bool:
        """Whether it came to the end of the ladder and keeps all constraints."""
        outcome = self.outcomes.get(evaluation.point)
        if evaluation.error or outcome is None or not outcome.whole:
            return False
        return all(excess <= 0 for excess in self.trials.excess(outcome.measures).values())

    def best(self, result: Found) -> Evaluation:
        """Of those that are kept, by the first objective. Errors: BudgetError where none is."""
        kept = [trial for trial in result.trials if self.kept(trial)]
        if kept:
            return min(kept, key=lambda trial: trial.values)
        near = min(result.trials, key=lambda trial: trial.values)
        outcome = self.outcomes.get(near.point)
        if outcome is None:
            raise InputError(f"all {len(result.trials)} trials failed; the last: {near.error}")
        excess = self.trials.excess(outcome.measures)
        binding, most = max(excess.items(), key=lambda pair: pair[1])
        name = binding.split()[0]
        raise BudgetError(
            f"none of {len(result.trials)} trials keeps all constraints; the nearest one breaks "
            f"{binding} by {most:.1%} of it with {name} {outcome.measures[name]:.4g}: "
            f"{_words(self.found.overrides(near.point))}. Loosen it, or widen search.space"
        )


def _begin_as(base: Path, folder: Path) -> None:
    """The dense model of the best trial as that of the run, so that it is not trained again."""
    if not (folder / JOURNAL).exists():
        shutil.copy2(base / "dense.safetensors", folder / "dense.safetensors")
        shutil.copy2(base / JOURNAL, folder / JOURNAL)


def _seeds(found: Strategies, section: SearchSection) -> list[Point]:
    """The recipe's own values where the space holds them, and the first ones elsewhere."""
    if not section.seeded:
        return []
    own = []
    told = found.plain().model_dump(mode="json")
    for parameter in found.space.parameters:
        value: Any = told
        for part in parameter.name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(parameter, Discrete):
            own.append(value if value in parameter.values else parameter.first)
        else:
            inside = isinstance(value, int | float) and parameter.low <= value <= parameter.high
            own.append(float(value) if inside else parameter.at(0.5))
    return [found.space.settled(tuple(own))]


def _document(
    goals: Goals,
    found: Strategies,
    trials: Trials,
    told: _Told,
    result: Found,
    best: Evaluation,
    name: str,
) -> dict[str, Any]:
    rows = []
    for trial in result.trials:
        outcome = told.outcomes.get(trial.point)
        rows.append({
            "overrides": found.overrides(trial.point),
            "values": [v if math.isfinite(v) else None for v in trial.values],
            "measures": None if outcome is None else dict(outcome.measures),
            "whole": outcome is not None and outcome.whole,
            "left": "" if outcome is None else outcome.left,
            "kept": told.kept(trial),
            "seconds": trial.seconds,
            "error": trial.error,
        })  # fmt: skip
    front = {trial.point for trial in result.front if told.kept(trial)}
    return plain({
        "algorithm": name,
        "objectives": [str(objective) for objective in goals.objectives],
        "constraints": [str(constraint) for constraint in goals.constraints],
        "dense": trials.dense,
        "read": told.read(),
        "trials": rows,
        "front": [n for n, trial in enumerate(result.trials) if trial.point in front],
        "taken": next(n for n, trial in enumerate(result.trials) if trial is best),
    })  # fmt: skip


def _said(goals: Goals, told: _Told, best: Evaluation) -> str:
    measures = told.outcomes[best.point].measures
    values = ", ".join(f"{o.name} {measures[o.name]:.4g}" for o in goals.objectives)
    return f"{values} with {_words(told.found.overrides(best.point))}"


def _words(overrides: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in overrides.items()
    )

"""What the recipes of a search are worth, to whoever makes its trials: this process, or a worker
that builds everything from the run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from secateur.config import Recipe
from secateur.errors import InputError
from secateur.job import folders
from secateur.job.listening import Listener, Silent, plain
from secateur.job.quiet import PATIENCE, STUDY, Turns
from secateur.job.standings import Standings
from secateur.job.strategy_goals import Goals, read_goals
from secateur.job.strategy_ladder import Outcome, read_outcome
from secateur.job.strategy_space import Strategies, strategies
from secateur.job.strategy_trials import Stood, Trials
from secateur.job.studies import RECIPES, digest, read_state
from secateur.job.subjects import load_subject
from secateur.metrics import METRICS, add_metric
from secateur.protocols import Subject
from secateur.searching import Point, Space
from secateur.searching._evaluation import Evaluate
from secateur.sources.functions import load_function
from secateur.structure.inputs import ExampleInputs
from secateur.training.loading import batches

FOLDER, ROWS = "search", "trials.jsonl"
LONG = 6 * PATIENCE  # a trial without a limit of its own may hold a measurement up so long
SAMPLES = 8  # of the validation split, that workers must have alike


@dataclass(frozen=True, eq=False)
class RecipesTried:
    """Points as recipes that are carried out, as far as they deserve it."""

    trials: Trials
    standings: Standings

    def __call__(self, point: Point) -> tuple[float, ...]:
        """Its values; what was measured is in the standings then."""
        rows = [row for row in self.standings.before(point) if row["outcome"] is not None]
        outcome, losses = self.trials(point, [self._stood(row) for row in rows])
        tensors = {rung: torch.from_numpy(values) for rung, values in losses.items()}
        self.standings.write(point, plain(vars(outcome)), tensors)
        return self.trials.values(outcome.measures)

    def _stood(self, row: dict[str, Any]) -> Stood:
        def losses() -> dict[str, np.ndarray]:
            return {k: v.numpy() for k, v in self.standings.tensors(row["name"]).items()}

        return Stood(row["name"], read_outcome(row["outcome"]), losses)

    def outcome(self, point: Point) -> Outcome:
        """What was measured of a point. Errors: InputError where its files are gone."""
        document = self.standings.read(point)
        if document is None:
            raise InputError(
                f"{self.trials.folder} has lost what was measured of a trial that the ledger "
                "knows; bring the whole folder"
            )
        return read_outcome(document)


def recipes_tried(
    recipe: Recipe,
    found: Strategies,
    goals: Goals,
    subject: Subject,
    folder: Path,
    listener: Listener,
) -> RecipesTried:
    """Of the run in a folder."""
    assert recipe.search is not None
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    turns = Turns(folder, max(PATIENCE, recipe.search.timeout or LONG))
    trials = Trials(found, goals, place, subject, recipe.search.share, turns, listener)
    return RecipesTried(trials, Standings(place, ROWS))


def recipe_evaluation(folder: Path, state: dict[str, Any]) -> tuple[Evaluate, Space, int]:
    """What a study's points are worth, and of what they are made. Errors: InputError where the
    data are not those of the run."""
    torch.set_num_threads(int(state["threads"]))
    recipe = folders.open_folder(folder)
    goals = goals_of(recipe)
    found = strategies(recipe, goals.budgets)
    subject = load_subject(recipe)
    told = folders.read_json(folder / STUDY / f"{RECIPES}.json")
    if digest(samples_of(subject)) != told["samples"]:
        raise InputError(f"the validation samples of {folder} are others here; bring the same data")
    tried = recipes_tried(recipe, found, goals, subject, folder, Silent())
    return tried, found.space, len(goals.objectives)


def recipe_evaluation_of(folder: str) -> Evaluate:
    """For engines that build it elsewhere. Errors: InputError, as ``recipe_evaluation``."""
    state = read_state(Path(folder))
    if state is None:
        raise InputError(f"there is no search in {folder}; every machine needs to see this folder")
    return recipe_evaluation(Path(folder), state)[0]


def samples_of(subject: Subject) -> Sequence[ExampleInputs]:
    """The first of the validation split; none where there are no data."""
    if subject.data is None:
        return []
    return [next(iter(batches(subject.data.val, SAMPLES)))[0]]


def goals_of(recipe: Recipe) -> Goals:
    """What a recipe's search is for; functions of the user's become metrics. Errors: InputError."""
    assert recipe.search is not None
    for text in (*recipe.search.objective, *recipe.search.constraints):
        for word in text.split():
            place, colon, _ = word.rpartition(":")
            known = word.replace("_", "-") in METRICS.names()
            if colon and (not known or place.endswith(".py")):  # a file may have been edited
                add_metric(word, load_function(word, Path(recipe.folder)))
    return read_goals(recipe.search.objective, recipe.search.constraints, recipe.metric)

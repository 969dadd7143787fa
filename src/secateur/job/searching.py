"""Widths as points of a search: levels of groups, whole branches, under the run's budgets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from secateur.config import SearchSection
from secateur.errors import BudgetError
from secateur.job.crews import crew_of
from secateur.job.rungs import Rungs, rungs_of, space_of
from secateur.job.standings import Asking, name_of
from secateur.job.studies import end_study, open_study
from secateur.job.trying import Trying
from secateur.job.width_trials import WidthsTried, row_of, standings_of
from secateur.job.width_worker import evaluation_of
from secateur.job.work import Work
from secateur.planning import StructureLike
from secateur.policies import POLICIES
from secateur.policies._descent import Search
from secateur.policies._ladder import Ladder, ladders
from secateur.refining import Refinement, Table, Trial, Units
from secateur.searching import ALGORITHMS, Point, Problem, Space
from secateur.searching._running import Evaluation, run_search

SHARES = 64  # steps in which a point that costs too much is moved towards the least widths


@dataclass(frozen=True, eq=False)
class Widths:
    """The rungs that groups and branches may stand on, and what they leave.

    places: of the ladders that a point speaks of; those whose way down lowers what is budgeted.
    """

    table: Table
    costs: StructureLike
    search: Search
    ladders: tuple[Ladder, ...]
    places: tuple[int, ...]

    @staticmethod
    def of(table: Table, costs: StructureLike) -> Widths:
        """Errors: InputError, as the policies."""
        found = ladders(table.scores, costs, table.request)
        search = Search(costs, table.request, found)
        return Widths(table, costs, search, tuple(found), tuple(search.useful()))

    def space(self) -> Space:
        """A parameter for each ladder: the number of a rung, 0 where nothing more leaves."""
        return space_of(self.all_rungs())

    def all_rungs(self) -> tuple[Rungs, ...]:
        """What workers need to know of the ladders."""
        return rungs_of(self.ladders, self.places)

    def rungs(self, point: Point) -> list[int]:
        """Of all ladders."""
        rungs = [0] * len(self.ladders)
        for place, rung in zip(self.places, point, strict=True):
            rungs[place] = rung
        return rungs

    def removal(self, point: Point) -> Units:
        """What leaves."""
        return self.search.removal(self.rungs(point))

    def point(self, remove: Mapping[str, tuple[int, ...]]) -> Point:
        """The nearest rungs, none of them less removed where there is one."""
        found = []
        for place in self.places:
            ladder = self.ladders[place]
            gone = len(remove.get(ladder.group.name, ()))
            last = len(ladder.counts) - 1
            found.append(min(int(np.searchsorted(ladder.counts, gone)), last))
        return tuple(found)

    def losses(self) -> dict[str, list[float]]:
        """Of every rung, as the scores say."""
        result = {}
        for place in self.places:
            ladder = self.ladders[place]
            sums = np.concatenate([[0.0], np.cumsum(np.maximum(ladder.scores, 0))])
            result[ladder.group.name] = sums[list(ladder.counts)].tolist()
        return result

    def repair(self, point: Point) -> Point | None:
        """Towards the least widths as far as the budgets ask for, then back as far as they allow,
        the dearest rungs first; None where even the least widths cost too much."""
        last = [len(self.ladders[place].counts) - 1 for place in self.places]

        def moved(step: int) -> list[int]:
            pairs = zip(point, last, strict=True)
            return self.rungs(tuple(at + -(-(end - at) * step // SHARES) for at, end in pairs))

        if not self.search.holds(moved(SHARES)):
            return None
        low, high = -1, SHARES
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.search.holds(moved(middle)) else (middle, high)
        at = {place: self._rises(self.ladders[place]) for place in self.places}
        rungs = self.search.refilled(moved(high), at, True)
        return tuple(rungs[place] for place in self.places)

    def _rises(self, ladder: Ladder) -> np.ndarray:
        """float64 [units]: for each unit the loss per unit of the rung that takes it."""
        sums = np.concatenate([[0.0], np.cumsum(np.maximum(ladder.scores, 0))])
        rises = np.zeros(ladder.group.size)
        for before, after in pairwise(ladder.counts):
            rises[before:after] = (sums[after] - sums[before]) / (after - before)
        return np.maximum.accumulate(rises)

    def cost(self, point: Point) -> float:
        """What it takes, in shares of the tightest limit."""
        found, limits = self.search.cost(self.rungs(point)), self.search.limits
        return max(float(getattr(found, kind)) / limit for kind, limit in limits.items())

    def solve(self, weights: Mapping[str, float]) -> Point | None:
        """The knapsack's answer where the losses of groups are weighted."""
        scores = {n: score * weights.get(n, 1.0) for n, score in self.table.scores.items()}
        try:
            return self.point(POLICIES.get("knapsack")(scores, self.costs, self.table.request))
        except BudgetError:
            return None


def searched(
    first: Table,
    further: Callable[[], Iterable[Table]],
    work: Work,
    step: int,
    trying: Trying,
    section: SearchSection,
) -> Refinement:
    """The best widths that the algorithm of a recipe finds; every trial keeps the budgets.

    further: tables that were made around a part of the way; the last of them is what the
    algorithm is told, for its losses are those of widths like the wanted ones. trying: what a
    choice loses. With ``seeded`` the first trials are the knapsack's answers to all tables, and
    the same share everywhere. All trials are in the run's ledger, and read back from there.
    Errors: BudgetError and InputError.
    """
    costs = work.costs
    answers: dict[str, Units | None] = {}
    answers[first.name] = POLICIES.get("knapsack")(first.scores, costs, first.request)
    answers["uniform"] = _uniform(first, costs)
    table = first
    for later in further():
        answers[later.name] = POLICIES.get("knapsack")(later.scores, costs, later.request)
        nothing = {name: torch.zeros_like(score) for name, score in first.scores.items()}
        table = Table(later.name, {**nothing, **later.scores}, first.request)
    widths = Widths.of(table, costs)
    names: dict[Point, str] = {}
    for name, remove in answers.items() if section.seeded else ():
        point = None if remove is None else widths.repair(widths.point(remove))
        if point is not None:
            names.setdefault(point, name)
    problem = Problem(
        widths.space(), widths.repair, tuple(names), widths.losses(), widths.solve,
        cost=widths.cost, shares=trying.shares,
    )  # fmt: skip
    maker = ALGORITHMS.get(section.algorithm)(problem, trying.seed, section.trials)
    trials: list[Trial] = []
    told = _Told(work, f"trials {step}")
    standings = standings_of(work.folder, f"prune-{step}")
    standings.open()
    tried = WidthsTried(trying, widths.removal, standings)

    def tell(number: int, found: Evaluation) -> None:
        name = names.get(found.point, section.algorithm)
        written = None if found.error else standings.read(found.question)
        row = row_of(name_of(found.question), found.value, found.share, written)
        told(number, found, name, row)
        if row["name"] not in standings.names():
            standings.tell(row)
        if not found.error and found.share == 1:
            loss = torch.tensor([found.value], dtype=torch.float64)
            trials.append(Trial(name, widths.removal(found.point), loss, found.seconds))

    ledger = open_study(work, step, widths.all_rungs(), trying)
    say = work.listener.say
    with crew_of(section, work.folder, ledger, tried, evaluation_of, say) as engine:
        found = run_search(
            problem, maker, Asking(engine, standings),
            trials=section.trials, seconds=60 * section.minutes, known=ledger.known(), tell=tell,
            parallel=section.window,
        )  # fmt: skip
    end_study(work.folder)
    told.end()
    best = widths.removal(found.best.point)
    return Refinement(tuple(trials), next(trial for trial in trials if trial.remove == best))


@dataclass
class _Told:
    """The line of progress: this trial, the best so far, and what all of them cost."""

    work: Work
    stage: str
    best: float = math.inf
    seconds: float = 0.0
    read: int = 0
    offered: int = 0

    def __call__(self, number: int, found: Evaluation, name: str, row: dict[str, Any]) -> None:
        self.seconds += found.seconds
        self.read, self.offered = self.read + row["read"], self.offered + row["offered"]
        if found.share == 1:
            self.best = min(self.best, found.value)
        what = f"failed, {found.error}" if found.error else f"loss {found.value:.4g}"
        what += f", {row['left']}" if row["left"] else ""
        what += f" on {found.share:.0%} of the samples" if found.share < 1 else ""
        self.work.listener.tick(
            self.stage, number,
            f"{what} ({name}), best {self.best:.4g}, {self.seconds:.3g} s of trials",
        )  # fmt: skip

    def end(self) -> None:
        """What was not needed."""
        if self.read < self.offered:
            share = 1 - self.read / self.offered
            self.work.listener.say(f"{share:.0%} of the held-out answers were not needed")


def _uniform(table: Table, costs: StructureLike) -> Units | None:
    try:
        return POLICIES.get("uniform")(table.scores, costs, table.request)
    except BudgetError:  # whole branches reach further than widths
        return None

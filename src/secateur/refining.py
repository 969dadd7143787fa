"""Better widths than a table of losses can give: trials on the model itself.

A table adds up what each group loses by itself. Weights of the groups' losses are searched, so
that the knapsack under these weights gives widths with which the compensated model answers best
on inputs that were held out (the coefficient search of SPDY, Frantar and Alistarh, 2022). Every
trial keeps the budgets.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from secateur.errors import BudgetError, InputError
from secateur.planning import StructureLike
from secateur.policies import POLICIES, Request

Units = dict[str, tuple[int, ...]]
PATIENCE = 8  # trials without a better one
SPREAD = (1.0, 0.4)  # deviation of the logarithm of a weight, at the first and the last trial
SHARE = 0.3  # of the groups whose weights are changed in a trial


@dataclass(frozen=True, eq=False)
class Table:
    """Losses of units (higher is kept), what is asked for, and where they come from.

    A table that was made around a smaller cut asks for what that cut removed as well.
    """

    name: str
    scores: Mapping[str, Tensor]
    request: Request


@dataclass(frozen=True)
class Trial:
    """One choice of widths, and the loss that was measured with it on each held-out sample.

    seconds: of measuring it. table, policy: what made the choice; planned: in how many seconds.
    """

    name: str
    remove: Units
    losses: Tensor
    seconds: float
    table: Table | None = None
    policy: str = ""
    planned: float = 0.0

    @property
    def spent(self) -> float:
        """Seconds of planning and measuring."""
        return self.planned + self.seconds

    @property
    def loss(self) -> float:
        """The mean."""
        return float(self.losses.mean())

    def beats(self, other: Trial) -> bool:
        """Whether it is better by more than the samples differ: one standard error in pairs.

        The best of many trials on few samples would otherwise be the luckiest one.
        """
        gain = other.losses - self.losses
        error = float(gain.std()) / len(gain) ** 0.5 if len(gain) > 1 else 0.0
        return float(gain.mean()) > error


@dataclass(frozen=True)
class Refinement:
    """All trials in the order in which they were made, and the one that was taken."""

    trials: tuple[Trial, ...]
    best: Trial


def refine(
    tables: Iterable[Table],
    structure: StructureLike,
    measure: Callable[[Units], tuple[Tensor, float]],
    *,
    trials: int,
    seconds: float,
    seed: int = 0,
    tell: Callable[[int, Trial], None] = lambda number, trial: None,
) -> Refinement:
    """Search the widths by trials; never worse than the same share of every group.

    tables: at least one; each is read when its turn comes. measure: the losses of a choice, one
    for each held-out sample, and the seconds that it took. trials: at most this many; seconds: no
    new one begins that would likely bring their sum above this. The knapsack's answer to the
    first table is always measured; then, if there is time, the uniform one and those to the other
    tables. A table that cannot reach the budget makes way for the next. The weights of the best
    table are searched.
    Raises BudgetError and InputError as the policy ``knapsack`` does.
    """
    generator = torch.Generator().manual_seed(seed)
    done: list[Trial] = []
    seen: set[tuple[tuple[str, tuple[int, ...]], ...]] = set()

    out_of_reach: dict[int, BudgetError] = {}  # by how much the table lets leave

    def attempt(name: str, policy: str, table: Table) -> Trial | None:
        begun = time.perf_counter()
        try:
            remove = POLICIES.get(policy)(table.scores, structure, table.request)
        except BudgetError as error:  # with whole branches further than without
            if policy == "knapsack":  # no other takes whole branches
                out_of_reach[len(table.scores)] = error
            return None
        key = tuple(sorted(remove.items()))
        if key in seen:
            return None
        seen.add(key)
        planned = time.perf_counter() - begun
        losses, seconds = measure(remove)
        done.append(Trial(name, remove, losses, seconds, table, policy, planned))
        tell(len(done), done[-1])
        return done[-1]

    def goes_on() -> bool:
        longest = max((trial.spent for trial in done), default=0.0)
        return len(done) < trials and sum(t.spent for t in done) + longest <= seconds

    table: Table | None = None
    best: Trial | None = None
    for candidate in tables:
        if best is not None and not goes_on():
            break
        trial = attempt(candidate.name, "knapsack", candidate)
        if table is None or best is None or (trial is not None and trial.loss < best.loss):
            table = candidate
        if best is None and goes_on():
            attempt("uniform", "uniform", candidate)
        best = min(done, key=lambda trial: trial.loss, default=None)
    if best is None and out_of_reach:
        raise out_of_reach[max(out_of_reach)]  # the smallest cost in reach of any table
    if table is None or best is None:
        raise InputError("refining needs a table of losses; give at least one")
    logs = {name: 0.0 for name in table.scores}
    since, drawn = 0, 0
    while goes_on() and since < PATIENCE and drawn < 4 * trials:
        drawn += 1
        changed = _changed(logs, drawn / trials, generator)
        weighted = {name: score * math.exp(changed[name]) for name, score in table.scores.items()}
        trial = attempt("weights", "knapsack", replace(table, scores=weighted))
        if trial is None:
            continue
        since += 1
        if trial.beats(best):
            best, logs, since = trial, changed, 0
    return Refinement(tuple(done), best)


def _changed(
    logs: Mapping[str, float], progress: float, generator: torch.Generator
) -> dict[str, float]:
    first, last = SPREAD
    spread = first + (last - first) * min(1.0, progress)
    chosen = torch.rand(len(logs), generator=generator) < SHARE
    if not bool(chosen.any()):
        chosen[int(torch.randint(len(logs), (1,), generator=generator))] = True
    steps = torch.randn(len(logs), generator=generator) * spread * chosen
    return {name: log + float(step) for (name, log), step in zip(logs.items(), steps, strict=True)}

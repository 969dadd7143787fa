"""``search``: which strategy of pruning serves a model best, in one call."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from torch import nn

from secateur.errors import InputError
from secateur.job.compressing import Result, compress
from secateur.job.listening import Listener
from secateur.job.strategy_space import read_space
from secateur.metrics import lent_metric
from secateur.searching import ALGORITHMS, Maker, Point, Problem
from secateur.searching._evaluation import Here
from secateur.searching._front import hypervolume
from secateur.searching._running import run_search
from secateur.training.losses import Loss

Objective = str | Callable[[nn.Module, Iterable[Any]], float]
GIVEN = "given"


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What ``search`` returns.

    best: values by parameter. trials: all of them in their order, each a dict with ``overrides``
    (its values), ``measures`` and ``error``. front: those of which no other is better in all
    objectives, and that keep the constraints. values: of a trial, one for each objective, to be
    small. result: what ``compress`` gives for the best, where a model was searched for.
    """

    best: Mapping[str, Any]
    trials: Sequence[Mapping[str, Any]]
    front: Sequence[Mapping[str, Any]]
    result: Result | None = None

    @property
    def model(self) -> nn.Module:
        """The pruned model of the best strategy. Errors: InputError where none was given."""
        if self.result is None:
            raise InputError("this search was over a function; there is no model")
        return self.result.model

    def hypervolume(self, reference: Sequence[float]) -> float:
        """What the front covers below a point that is worse than all that is wanted; values as
        they are made small (an accuracy is negative)."""
        return hypervolume([trial["values"] for trial in self.front], reference)


def search(
    model: nn.Module | None = None,
    space: Mapping[str, Any] | None = None,
    objective: Objective | Sequence[Objective] = (),
    constraints: str | Sequence[str] = (),
    *,
    evaluate: Callable[[dict[str, Any]], float | Sequence[float]] | None = None,
    train: Any = None,
    val: Any = None,
    test: Any = None,
    target: Mapping[str, str | float] | None = None,
    algorithm: str | Maker = "auto",
    budget: int = 50,
    minutes: float = 60.0,
    timeout: float | None = None,
    metric: str = "",
    loss: Loss | None = None,
    epochs: int = 3,
    recipe: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    listener: Listener | None = None,
) -> SearchResult:
    """Search the space of strategies; the caller's model is untouched.

    space: keys of a recipe by their dotted names, with values: ``{"pruning.criterion": ["obs",
    "l2"], "target.flops": {"low": 0.2, "high": 0.8}}``. objective: names of metrics and costs,
    ``"max f1"``, or functions (model, batches) -> float to be made large (an attribute
    ``higher_is_better = False`` turns that round); several give a front. constraints: ``"flops <=
    0.5x"``, ``"drop <= 1pt"``. algorithm: a name, or a function (problem, seed, trials) that makes
    one. budget: trials at most; minutes: of all together; timeout: seconds of one.
    evaluate: in place of a model, a function of a point ({parameter: value}, without those whose
    ``when`` does not hold) to be made small, or one value for each objective of which ``objective``
    gives the names; the space may then hold any names.
    Data, target, epochs, metric, loss, recipe and folder as in ``compress``.
    Errors: InputError, BudgetError where no trial keeps the constraints, CaptureError.
    """
    _check_limits(budget, minutes, timeout)
    if not space:
        raise InputError(
            "search needs a space, {name: values}; to search widths alone use compress"
        )
    goals = [objective] if isinstance(objective, str) or callable(objective) else list(objective)
    with ExitStack() as lent:
        name = algorithm if isinstance(algorithm, str) else _maker(algorithm, lent)
        if evaluate is not None:
            if model is not None or constraints:
                raise InputError(
                    "evaluate takes the place of a model and its constraints; give one"
                )
            count = max(1, len(goals))
            return _searched(space, evaluate, count, name, budget, minutes, timeout, seed)
        if model is None:
            raise InputError("search needs a model, or a function as evaluate")
        section = {
            "space": dict(space),
            "objective": _metrics(goals, lent),
            "constraints": [constraints] if isinstance(constraints, str) else list(constraints),
            "algorithm": name,
            "trials": int(budget),
            "minutes": minutes,
            "timeout": timeout,
        }
        result = compress(
            model, train, val, test,
            target=target or {}, epochs=epochs, metric=metric, loss=loss, folder=folder, seed=seed,
            recipe={**(recipe or {}), "search": section}, listener=listener,
        )  # fmt: skip
    told = result.metrics["search"]
    trials = told["trials"]
    return SearchResult(
        trials[told["taken"]]["overrides"], trials, [trials[n] for n in told["front"]], result
    )


def _searched(
    space: Mapping[str, Any],
    evaluate: Callable[[dict[str, Any]], float | Sequence[float]],
    objectives: int,
    name: str,
    budget: int,
    minutes: float,
    timeout: float | None,
    seed: int,
) -> SearchResult:
    problem = Problem(read_space(space), objectives=objectives)

    def named(point: Point) -> dict[str, Any]:
        return problem.space.active(point)

    if name == "auto":
        name = "nsga2" if objectives > 1 else "tpe"
    found = run_search(
        problem, ALGORITHMS.get(name)(problem, seed, budget),
        Here(lambda point: evaluate(named(point)), objectives, timeout or math.inf),
        trials=budget, seconds=60 * minutes,
    )  # fmt: skip
    rows = {
        trial.point: {
            "overrides": named(trial.point), "values": trial.values, "error": trial.error,
            "measures": None, "seconds": trial.seconds,
        }
        for trial in found.trials
    }  # fmt: skip
    front = [rows[trial.point] for trial in found.front]
    return SearchResult(named(found.best.point), list(rows.values()), front)


def _metrics(goals: Sequence[Objective], lent: ExitStack) -> list[str]:
    """The names of all objectives; functions get theirs for as long as the search runs, in their
    order, so that a search which is resumed with the same ones finds what its folder says of
    them, and no other search finds these."""
    names: dict[int, str] = {}
    for goal in goals:
        if not isinstance(goal, str) and id(goal) not in names:
            own = f"{GIVEN}:{getattr(goal, '__name__', type(goal).__name__)}"
            names[id(goal)] = lent.enter_context(lent_metric(own, goal))
    return [goal if isinstance(goal, str) else names[id(goal)] for goal in goals]


def _maker(maker: Maker, lent: ExitStack) -> str:
    name = str(getattr(maker, "__name__", type(maker).__name__)).strip("_<>")
    return lent.enter_context(ALGORITHMS.lent(f"{GIVEN}-{name}", lambda free: maker))


def _check_limits(budget: object, minutes: object, timeout: object) -> None:
    """Errors: InputError."""
    if not isinstance(budget, Integral) or isinstance(budget, bool) or budget < 1:
        raise InputError(f"budget is {budget!r}; give a whole number of trials, at least 1")
    for name, value in (("minutes", minutes), ("timeout", timeout)):
        if name == "timeout" and value is None:
            continue
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not number or not float(value) > 0:  # type: ignore[arg-type]
            unit = "minutes of all trials" if name == "minutes" else "seconds of a trial, or None"
            raise InputError(f"{name} is {value!r}; give a number above 0: {unit}")

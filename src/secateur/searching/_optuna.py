"""Samplers of optuna behind the contract."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from secateur.errors import InputError
from secateur.searching import Discrete, Point, Problem


def optuna() -> Any:
    """The library, silent. Errors: InputError where it is not installed."""
    try:
        import optuna as library
    except ImportError as error:
        raise InputError("this search needs optuna; install secateur[search]") from error
    library.logging.set_verbosity(library.logging.ERROR)
    return library


def distributions(library: Any, problem: Problem) -> dict[str, Any]:
    """Ordered values by their number, others by their number without an order."""
    found: dict[str, Any] = {}
    for parameter in problem.space.parameters:
        if not isinstance(parameter, Discrete):
            found[parameter.name] = library.distributions.FloatDistribution(
                parameter.low, parameter.high, log=parameter.log
            )
        elif parameter.ordered:
            found[parameter.name] = library.distributions.IntDistribution(
                0, len(parameter.values) - 1
            )
        else:
            found[parameter.name] = library.distributions.CategoricalDistribution(
                list(range(len(parameter.values)))
            )
    return found


class Sampled:
    """A study in memory that a sampler fills.

    A point that was told in place of the one that was asked for (it was repaired) is what the
    sampler learns.
    """

    def __init__(self, problem: Problem, make: Callable[[Any], Any]) -> None:
        library = optuna()
        self._library, self._space = library, problem.space
        self._distributions = distributions(library, problem)
        self._study = library.create_study(
            sampler=make(library), directions=["minimize"] * problem.objectives
        )
        self._waiting = list(problem.seeds)

    def ask(self) -> Point | None:
        """A seed, or what the sampler suggests."""
        if self._waiting:
            return self._waiting.pop(0)
        trial = self._study.ask(self._distributions)
        self._study.tell(trial, state=self._library.trial.TrialState.FAIL)  # tell() brings it
        values = [
            p.values[trial.params[p.name]] if isinstance(p, Discrete) else trial.params[p.name]
            for p in self._space.parameters
        ]
        return self._space.settled(tuple(values))

    def tell(self, point: Point, values: Sequence[float]) -> None:
        """Add it to the study."""
        if not all(map(math.isfinite, values)):
            return
        params = {
            p.name: p.values.index(v) if isinstance(p, Discrete) else v
            for p, v in zip(self._space.parameters, point, strict=True)
        }
        self._study.add_trial(
            self._library.trial.create_trial(
                params=params, distributions=self._distributions, values=list(values)
            )
        )

"""Populations of pymoo behind the contract."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from secateur.errors import InputError
from secateur.searching import WAIT, Point, Problem, Wait
from secateur.searching._failures import worse_than_all

LARGEST = 20  # of a population; fewer where there are few trials
KINDS = {
    "genetic": ("pymoo.algorithms.soo.nonconvex.ga", "GA"),
    "swarm": ("pymoo.algorithms.soo.nonconvex.pso", "PSO"),
    "differential": ("pymoo.algorithms.soo.nonconvex.de", "DE"),
    "nsga2": ("pymoo.algorithms.moo.nsga2", "NSGA2"),
}


class Population:
    """A generation is asked for as a whole, and the next one when all of it was told."""

    def __init__(self, problem: Problem, seed: int, trials: int, kind: str) -> None:
        try:
            module = import_module(KINDS[kind][0])
            from pymoo.core.problem import Problem as Theirs
        except ImportError as error:
            raise InputError(
                f"the search {kind!r} needs pymoo; install secateur[search]"
            ) from error
        if kind != "nsga2":
            problem.refuse_several(kind)
        self._space = problem.space
        count = len(problem.space.parameters)
        size = max(4, min(LARGEST, trials // 5))
        generator = np.random.default_rng(seed)
        first = [problem.space.encode(point) for point in problem.seeds][:size]
        first += [generator.random(count) for _ in range(size - len(first))]
        options: dict[str, Any] = {"pop_size": size, "sampling": np.array(first)}
        self._theirs = Theirs(
            n_var=count, n_obj=problem.objectives, xl=np.zeros(count), xu=np.ones(count)
        )
        self._algorithm = getattr(module, KINDS[kind][1])(**options)
        self._algorithm.setup(self._theirs, seed=seed, termination=("n_eval", 10**9), verbose=False)
        self._asked: list[Point] = []
        self._generation: Any = None
        self._told: list[tuple[Point, Sequence[float]]] = []

    def ask(self) -> Point | Wait | None:
        """The next of its generation."""
        if not self._asked:
            if self._generation is not None:
                if len(self._told) < len(self._generation):
                    return WAIT
                self._learn()
            self._generation, self._told = self._algorithm.ask(), []
            self._asked = [
                self._space.decode(np.clip(one.X, 0, 1 - 1e-9)) for one in self._generation
            ]
        return self._asked.pop(0)

    def tell(self, point: Point, values: Sequence[float]) -> None:
        """Of the generation, in the order in which it was asked for."""
        if self._generation is not None and len(self._told) < len(self._generation):
            self._told.append((point, values))

    def _learn(self) -> None:
        """The generation as it was after its repair; what failed is worse than all others."""
        from pymoo.core.evaluator import Evaluator
        from pymoo.problems.static import StaticProblem

        values = worse_than_all([found for _, found in self._told])
        for one, (point, _) in zip(self._generation, self._told, strict=True):
            one.set("X", self._space.encode(point))
        Evaluator().eval(StaticProblem(self._theirs, F=values), self._generation)
        self._algorithm.tell(infills=self._generation)

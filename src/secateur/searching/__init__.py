"""Search algorithms over one contract: ask for a point, tell what it was worth. A file is one.

An algorithm sees a ``Problem``: a space of points, a repair that moves any point to where all
constraints hold, points to begin with, and what is known without evaluating. Smaller is better.
It draws from its seed alone, so that the same answers give the same questions again: a search is
resumed by asking anew and answering from the ledger.
"""

from __future__ import annotations

from typing import Protocol

from secateur.registry import Registry
from secateur.searching._problem import Problem
from secateur.searching._space import Discrete, Parameter, Point, Real, Space


class Algorithm(Protocol):
    """One search.

    ask:  the next point to look at, not yet repaired; None where the search has ended.
    tell: what a point was worth, as it was after its repair; infinite where it could not be
          repaired or its evaluation failed. Points may be told that were never asked for.
    """

    def ask(self) -> Point | None: ...
    def tell(self, point: Point, value: float) -> None: ...


class Maker(Protocol):
    """Make an algorithm. trials: how many evaluations it will get, to plan ahead."""

    def __call__(self, problem: Problem, seed: int, trials: int) -> Algorithm: ...


ALGORITHMS: Registry[Maker] = Registry("search algorithm", package="secateur.searching")
algorithm = ALGORITHMS.register

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Discrete",
    "Maker",
    "Parameter",
    "Point",
    "Problem",
    "Real",
    "Space",
    "algorithm",
]

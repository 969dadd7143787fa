"""Search algorithms over one contract: ask for a point, tell what it was worth. A file is one.

An algorithm sees a ``Problem``: a space of points, a repair that moves any point to where all
constraints hold, points to begin with, and what is known without evaluating. Smaller is better.
It draws from its seed alone, so that the same answers give the same questions again: a search is
resumed by asking anew and answering from the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from secateur.registry import Registry
from secateur.searching._problem import WAIT, Problem, Wait
from secateur.searching._space import Discrete, Parameter, Partly, Point, Question, Real, Space


class Algorithm(Protocol):
    """One search.

    ask:  the next point to look at, not yet repaired; None where the search has ended, and
          ``WAIT`` where answers to earlier points must come first. ``Partly`` asks for a cheap
          evaluation, of one of the problem's shares; told is then a ``Partly`` as well.
    tell: what a point was worth, as it was after its repair: a value for each objective, infinite
          where it could not be repaired or its evaluation failed. Answers come in the order in
          which points were asked for, maybe some asks later. Points may be told that were never
          asked for.
    """

    def ask(self) -> Question | Wait | None: ...
    def tell(self, point: Any, values: Sequence[float]) -> None: ...


class Maker(Protocol):
    """Make an algorithm. trials: how many evaluations it will get, to plan ahead."""

    def __call__(self, problem: Problem, seed: int, trials: int) -> Algorithm: ...


ALGORITHMS: Registry[Maker] = Registry("search algorithm", package="secateur.searching")
algorithm = ALGORITHMS.register

__all__ = [
    "ALGORITHMS",
    "WAIT",
    "Algorithm",
    "Discrete",
    "Maker",
    "Parameter",
    "Partly",
    "Point",
    "Problem",
    "Question",
    "Real",
    "Space",
    "Wait",
    "algorithm",
]

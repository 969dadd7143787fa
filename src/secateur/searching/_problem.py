"""What a search is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from secateur.errors import InputError
from secateur.searching._space import Point, Space


class Wait(Enum):
    """What an algorithm asks for when it must hear of earlier points first."""

    WAIT = "wait"


WAIT = Wait.WAIT


def _as_it_is(point: Point) -> Point | None:
    return point


def _unsaid(point: Point) -> str:
    return ""


@dataclass(frozen=True, eq=False)
class Problem:
    """A space, and what is known of its points without evaluating them.

    repair: a point nearby that keeps all constraints, as tightly as it can; None where there is
            none. refusal: why a point could not be repaired, in words; empty where that is not
            known. seeds: points to begin with, the most promising first.
    table:  for parameters whose values add to what a point costs, parameter -> the loss to expect
            of each of its values; solve: the point of least loss in the table with the losses of
            each parameter weighted, that keeps the constraints. None where there is no table.
    objectives: how many values a point has, all to be small.
    cost:   what any point takes, in shares of the tightest limit: at most 1 where all hold. None
            where that is not known.
    shares: of the cost of a full evaluation that cheaper ones take, rising below 1; what those say
            may be biased. None are there by default.
    """

    space: Space
    repair: Callable[[Point], Point | None] = _as_it_is
    seeds: Sequence[Point] = ()
    table: Mapping[str, Sequence[float]] | None = None
    solve: Callable[[Mapping[str, float]], Point | None] | None = None
    objectives: int = 1
    cost: Callable[[Point], float] | None = None
    shares: Sequence[float] = ()
    refusal: Callable[[Point], str] = _unsaid

    def refuse_several(self, name: str) -> None:
        """For algorithms that know one objective. Errors: InputError where there are more."""
        if self.objectives > 1:
            raise InputError(
                f"the search {name!r} knows one objective and {self.objectives} are given; take "
                "nsga2, tpe, random or grid, or one objective"
            )

"""Points of a search as what leaves, as JSON: workers need no table for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from secateur.policies._ladder import Ladder
from secateur.refining import Units
from secateur.searching import Discrete, Point, Space


@dataclass(frozen=True)
class Rungs:
    """One group's or branch's way down.

    order: its units in the order in which they leave. counts: how many are gone on each rung.
    searched: whether points speak of it; otherwise it stands on its first rung.
    """

    name: str
    order: tuple[int, ...]
    counts: tuple[int, ...]
    searched: bool

    def units(self, rung: int) -> tuple[int, ...]:
        """The units that are gone on a rung, sorted."""
        return tuple(sorted(self.order[: self.counts[rung]]))


def rungs_of(ladders: Sequence[Ladder], searched: Sequence[int]) -> tuple[Rungs, ...]:
    """Of all ladders; searched: the numbers of those that points speak of."""
    return tuple(
        Rungs(
            ladder.group.name,
            tuple(int(unit) for unit in ladder.order[: max(ladder.counts)]),
            tuple(int(count) for count in ladder.counts),
            number in searched,
        )
        for number, ladder in enumerate(ladders)
    )


def space_of(rungs: Sequence[Rungs]) -> Space:
    """A parameter for each that is searched: the number of a rung, 0 where nothing more leaves."""
    return Space(tuple(Discrete(x.name, tuple(range(len(x.counts)))) for x in rungs if x.searched))


def removal_of(rungs: Sequence[Rungs], point: Point) -> Units:
    """What leaves at a point."""
    places = iter(point)
    units = {x.name: x.units(next(places) if x.searched else 0) for x in rungs}
    return {name: gone for name, gone in units.items() if gone}


def written(rungs: Sequence[Rungs]) -> list[dict[str, Any]]:
    """As JSON has it."""
    return [asdict(one) for one in rungs]


def read(documents: Sequence[Mapping[str, Any]]) -> tuple[Rungs, ...]:
    """From JSON."""
    return tuple(
        Rungs(x["name"], tuple(x["order"]), tuple(x["counts"]), bool(x["searched"]))
        for x in documents
    )

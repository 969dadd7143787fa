"""Which candidates of a search are worth a training, and which a long one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from secateur.config import TrainingSection

SHORT = 4  # the short training is so many times shorter


@dataclass(frozen=True)
class Outcome:
    """What was measured of a point.

    measures: metrics on the validation split, costs, and the drop of the recipe's metric.
    ranks: what it was compared by on each rung of the ladder that it reached; whole: whether it
    came to the end of it, by all samples. left: why it did not. read: validation samples that it
    answered; offered: how many there were, on all rungs that it reached.
    """

    measures: Mapping[str, float]
    ranks: tuple[float, ...]
    whole: bool
    left: str = ""
    read: int = 0
    offered: int = 0


def read_outcome(document: Mapping[str, Any]) -> Outcome:
    """As the ledger keeps it."""
    return Outcome(**{**document, "measures": dict(document["measures"]),
                      "ranks": tuple(document["ranks"])})  # fmt: skip


def rungs(training: TrainingSection | None) -> tuple[TrainingSection | None, ...]:
    """The trainings that a candidate may get, each from the pruned model: none, a short one where
    the whole one is long enough for that, the whole one."""
    if training is None or not training.epochs:
        return (training,)
    if training.epochs < SHORT:
        return (None, training)
    short = training.model_copy(update={"epochs": training.epochs // SHORT})
    return (None, short, training)


RACED = "left after "  # how ``left`` begins of those that answered a part of the samples


class Ladder:
    """Asynchronous successive halving (Li et al., 2020): a candidate goes on where it is among
    the best ``share`` of those that stood on the same rung before it, itself counted.

    share: 1 lets all go on. before: names and outcomes of those before it.
    """

    def __init__(self, share: float, before: Iterable[tuple[str, Outcome]] = ()) -> None:
        self._share = share
        self._seen: dict[int, list[tuple[float, str, Outcome]]] = {}
        for name, outcome in before:
            for rung, rank in enumerate(outcome.ranks):
                self._seen.setdefault(rung, []).append((rank, name, outcome))

    def goes_on(self, rung: int, value: float) -> bool:
        """Whether it does; smaller is better."""
        seen = self._seen.get(rung, [])
        better = sum(rank < value for rank, *_ in seen)
        return better < self._share * (len(seen) + 1)

    def to_beat(self, rung: int, last: bool, fits: Callable[[Outcome], bool]) -> str | None:
        """The name of that candidate behind which no other one goes on from this rung, or, on the
        last one, can be the answer. None where there is none yet.

        fits: whether a candidate came to the end, keeps the constraints, and is no worse in what is
        known beforehand.
        """
        seen = sorted((entry for entry in self._seen.get(rung, ())), key=lambda entry: entry[0])
        read = [entry for entry in seen if _read_all(entry[2], rung)]
        if last:
            return next((name for _, name, outcome in read if fits(outcome)), None)
        place = math.ceil(self._share * (len(seen) + 1)) - 1
        if place >= len(seen):
            return None
        return next((name for rank, name, _ in read if rank >= seen[place][0]), None)


def _read_all(outcome: Outcome, rung: int) -> bool:
    """Whether it answered all samples on a rung."""
    return not outcome.left.startswith(RACED) or rung < len(outcome.ranks) - 1

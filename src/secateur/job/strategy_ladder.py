"""Which candidates of a search are worth a training, and which a long one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from secateur.config import TrainingSection

SHORT = 4  # the short training is so many times shorter


@dataclass(frozen=True)
class Outcome:
    """What was measured of a point.

    measures: metrics on the validation split, costs, and the drop of the recipe's metric.
    ranks: what it was compared by on each rung of the ladder that it reached; whole: whether it
    came to the end of it.
    """

    measures: Mapping[str, float]
    ranks: tuple[float, ...]
    whole: bool


def read_outcome(document: Mapping[str, Any]) -> Outcome:
    """As the ledger keeps it."""
    return Outcome(dict(document["measures"]), tuple(document["ranks"]), bool(document["whole"]))


def rungs(training: TrainingSection | None) -> tuple[TrainingSection | None, ...]:
    """The trainings that a candidate may get, each from the pruned model: none, a short one where
    the whole one is long enough for that, the whole one."""
    if training is None or not training.epochs:
        return (training,)
    if training.epochs < SHORT:
        return (None, training)
    short = training.model_copy(update={"epochs": training.epochs // SHORT})
    return (None, short, training)


class Ladder:
    """Asynchronous successive halving (Li et al., 2020): a candidate goes on where it is among
    the best ``share`` of those that stood on the same rung before it, itself counted.

    share: 1 lets all go on. before: outcomes of those before it.
    """

    def __init__(self, share: float, before: Iterable[Outcome] = ()) -> None:
        self._share = share
        self._seen: dict[int, list[float]] = {}
        for outcome in before:
            for rung, rank in enumerate(outcome.ranks):
                self._seen.setdefault(rung, []).append(rank)

    def goes_on(self, rung: int, value: float) -> bool:
        """Whether it does; smaller is better. Its value counts for those after it."""
        self._seen.setdefault(rung, []).append(value)
        better = sum(other < value for other in self._seen[rung])
        return better < self._share * len(self._seen[rung])

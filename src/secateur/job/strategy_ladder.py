"""Which candidates of a search are worth a training, and which a long one."""

from __future__ import annotations

from secateur.config import TrainingSection

SHORT = 4  # the short training is so many times shorter


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

    share: 1 lets all go on.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._seen: dict[int, list[float]] = {}

    def goes_on(self, rung: int, value: float) -> bool:
        """Whether it does; smaller is better. Its value counts for those after it."""
        self.learn(rung, value)
        better = sum(other < value for other in self._seen[rung])
        return better < self._share * len(self._seen[rung])

    def learn(self, rung: int, value: float) -> None:
        """Of a candidate that stood there in an earlier run."""
        self._seen.setdefault(rung, []).append(value)

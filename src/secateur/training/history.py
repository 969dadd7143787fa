"""What a training reports, and how it fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class StepReport:
    """One update of the weights.

    epoch, batch:  from 1.
    epochs, batches: how many there will be, of batches in each epoch.
    loss: of this batch; None where reading it would hold up a GPU.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    learning_rate: float
    loss: float | None


@dataclass(frozen=True)
class EpochReport:
    """One pass over the data.

    epoch:   from 1.
    loss:    mean over the samples, while they were trained on.
    metrics: what ``validate`` returned; empty without it.
    learning_rate: of the last update.
    seconds: of the whole epoch with its validation; after a resume the time of both parts.
    best:    whether it was better than all epochs before, and no worse than the model as given.
    details: numbers of methods that took part, such as a share of zeros.
    """

    epoch: int
    loss: float
    metrics: Mapping[str, float]
    learning_rate: float
    samples: int
    seconds: float
    best: bool
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class History:
    """All epochs of a training, those before a resume included.

    kept:   the epoch whose weights the model has now, from 1; the last one where no metric chose;
            ``begin_at`` of the settings, mostly 0, where all were worse than the model as given.
    masks:  of what methods hold at zero: parameter -> bool, True where an element stays.
    remove: units that methods chose, and that are zero: group -> numbers.
    before: metrics of the model as given; empty where they were not looked at.
    """

    epochs: tuple[EpochReport, ...]
    kept: int
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    remove: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    before: Mapping[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Time of all epochs."""
        return sum(report.seconds for report in self.epochs)

    @property
    def kept_report(self) -> EpochReport | None:
        """Of the epoch whose weights the model has now; None where it is as it was given."""
        return next((report for report in self.epochs if report.epoch == self.kept), None)

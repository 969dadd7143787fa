"""Candidates of a search on the validation split: first a few samples, beside others' answers to
the same ones; all of them where no interval says that it is behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from secateur.job.racing import Interval, Race, looks, lost
from secateur.job.strategy_goals import Goals
from secateur.job.work import Work
from secateur.metrics import evaluate, get_metric
from secateur.metrics._own import OwnMetric
from secateur.metrics._samples import of_samples
from secateur.training.devices import resolve
from secateur.training.loading import batches, count_samples, forward

ORDER = 0  # seed of the order in which samples are read: the first ones stand for all
KEPT = 2**26  # numbers of answers that are kept, so that several metrics take one pass


@dataclass(frozen=True, eq=False)
class Judgement:
    """What the validation split says of a candidate.

    metrics: by name; of one that left only that of the race, estimated. losses: float64 [read] of
    samples in the order in which they are read, small ones better; None where the metric is no
    mean over samples. read: samples that were answered, of those offered. left: the race that it
    lost.
    """

    metrics: dict[str, float]
    losses: np.ndarray | None
    read: int
    offered: int
    left: tuple[Race, Interval] | None = None


def judge(
    work: Work, model: nn.Module, goals: Goals, raced: str | None, races: Sequence[Race]
) -> Judgement:
    """Read validation samples in an order that is drawn once for all, until a race is lost or none
    are left.

    raced: the metric of the races, a mean over samples. races: none where all shall be read.
    Errors: InputError as ``evaluate``.
    """
    data, section = work.subject.data, work.recipe.data
    assert data is not None and section is not None
    device = resolve(work.recipe.device)
    model.to(device).eval()

    total, loss = count_samples(data.val), data.loss
    stops = looks(total) if races else ()
    size = min([section.batch_size * 2, *stops])  # no more is read than the first look asks for

    rows = _Rows(lambda: batches(data.val, size, seed=ORDER, device=device))
    answers = _Answers(model)
    losses = np.zeros(0)
    left = None
    if raced is not None:
        losses, left = _raced(answers, rows, raced, races, stops)
    metrics: dict[str, float] = {}
    if left is not None:
        metrics[raced or ""] = _sign(raced or "") * left[0].estimate(losses)
    else:
        for name in goals.metrics:
            own = isinstance(get_metric(name), OwnMetric)
            replayed = model if own else answers.again()
            metrics[name] = float(evaluate(replayed, rows, name, loss)[name])
    model.to("cpu")
    read = len(losses) if left is not None else total
    return Judgement(metrics, losses if raced is not None else None, read, total, left)


def raced_metric(work: Work, goals: Goals) -> str | None:
    """The metric by which candidates can be told apart on a few samples: the first objective's,
    where it is a mean over samples, and what else is asked for costs or is a drop of the same.

    None where there is none: then all samples are always read.
    """
    first = goals.objectives[0]
    others = {*(o.name for o in goals.objectives[1:]), *(c.name for c in goals.constraints)}
    if first.name not in goals.metrics or others & ({*goals.metrics} - {first.name}):
        return None
    if any(o.name == first.name for o in goals.constraints):
        return None
    if goals.names("drop") and goals.metric != first.name:
        return None
    if first.sign != _sign(first.name):
        return None
    data, section = work.subject.data, work.recipe.data
    if data is None or section is None:
        return None
    if first.name == "loss" and data.loss is not None:  # known by its mean alone
        return None
    inputs, targets = next(iter(batches(data.val, 2)))
    with torch.no_grad():
        found = of_samples(first.name, forward(work.dense, inputs), targets)
    return None if found is None else first.name


def _sign(metric: str) -> int:
    return -1 if get_metric(metric).higher_is_better else 1


def _raced(
    answers: _Answers,
    rows: Iterable[tuple[Any, Any]],
    metric: str,
    races: Sequence[Race],
    stops: Sequence[int],
) -> tuple[np.ndarray, tuple[Race, Interval] | None]:
    losses = np.zeros(0)
    waiting = list(stops) if races else []
    with torch.no_grad():
        for inputs, targets in rows:
            values = of_samples(metric, forward(answers, inputs), targets)
            assert values is not None, "the metric was seen to be a mean over samples"
            losses = np.concatenate([losses, _sign(metric) * values.cpu().numpy()])
            if not waiting or len(losses) < waiting[0] or not np.isfinite(losses).all():
                continue
            while waiting and waiting[0] <= len(losses):
                waiting.pop(0)
            if len(losses) < len(races[0].reference) and (found := lost(races, losses)) is not None:
                return losses, found
    return losses, None


@dataclass(frozen=True)
class _Rows:
    """Batches that begin anew with every pass."""

    begin: Callable[[], Iterator[tuple[Any, Any]]]

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self.begin()


class _Answers(nn.Module):
    """A model that gives the same answers again where it is asked the same again, in order."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._kept: list[Any] = []
        self._next, self._room = 0, KEPT

    def again(self) -> _Answers:
        """From the beginning."""
        self._next = 0
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the model's."""
        place, self._next = self._next, self._next + 1
        if place < len(self._kept):
            return self._kept[place]
        found = self.model(*args, **kwargs)
        if place == len(self._kept):
            self._room -= sum(
                leaf.numel() for leaf in pytree.tree_leaves(found) if isinstance(leaf, torch.Tensor)
            )
            if self._room >= 0:
                self._kept.append(found)
        return found

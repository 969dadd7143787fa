"""One pass over batches: the metric and the loss, in eval mode."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from secateur.errors import InputError
from secateur.metrics import Batches, Loss, get_metric
from secateur.metrics._own import OwnMetric
from secateur.metrics.loss import count_samples
from secateur.training.loading import forward
from secateur.training.losses import default_loss


def evaluate(
    model: nn.Module, batches: Batches, metric: str, loss: Loss | None
) -> dict[str, float]:
    """See ``secateur.metrics.evaluate``."""
    found = get_metric(metric)
    mean = _Mean()
    with _evaluating(model), torch.no_grad():
        if isinstance(found, OwnMetric):
            watched = _Watched(metric, model, batches, loss or default_loss, mean)
            value = found.measure(model, watched)
            model.eval()  # the user's function may have changed that
            watched.finish()
        else:
            counter = found()
            for inputs, targets in batches:
                outputs = forward(model, inputs)
                batch_loss = float((loss or default_loss)(outputs, targets))
                mean.add(batch_loss, count_samples(targets), _has_nan(outputs))
                counter.add(outputs, targets, batch_loss)
            value = counter.value() if mean.count else math.nan
    if not mean.count:
        raise InputError(f"{metric} of no samples: there are no batches; give at least one")
    value = math.nan if mean.broken else value
    return {"loss": mean.value(), "count": mean.count, metric: value}


class _Watched:
    """The batches that the user's function reads: in the first pass each of them is measured
    before the function gets it, and in ``finish`` those that it left."""

    def __init__(
        self, metric: str, model: nn.Module, batches: Batches, loss: Loss, mean: _Mean
    ) -> None:
        self._metric, self._batches = metric, batches
        first = iter(batches)
        self._once = first is batches  # an iterator, which cannot begin again
        self._first = self._measured(first, model, loss, mean)
        self._begun, self._ended = False, False

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Errors: InputError where the batches were read to their end and come only once."""
        if self._once and self._ended:
            raise InputError(
                f"metric {self._metric} reads its batches a second time, and they come once; keep "
                "them, as by batches = list(batches), or take all from one pass"
            )
        again = self._begun and not self._once
        self._begun = True
        return iter(self._batches) if again else self._first

    def __next__(self) -> tuple[Any, Any]:
        return next(self._first)

    def finish(self) -> None:
        """Measure what was not read."""
        for _ in self._first:
            pass

    def _measured(
        self, rows: Iterator[tuple[Any, Any]], model: nn.Module, loss: Loss, mean: _Mean
    ) -> Iterator[tuple[Any, Any]]:
        for inputs, targets in rows:
            outputs = forward(model, inputs)
            mean.add(float(loss(outputs, targets)), count_samples(targets), _has_nan(outputs))
            yield inputs, targets
        self._ended = True


class _Mean:
    """Mean loss over samples."""

    def __init__(self) -> None:
        self.total = 0.0
        self.count = 0
        self.broken = False

    def add(self, loss: float, samples: int, broken: bool) -> None:
        self.total += loss * samples
        self.count += samples
        self.broken = self.broken or broken

    def value(self) -> float:
        return self.total / self.count


def _has_nan(outputs: Any) -> bool:
    return any(
        isinstance(leaf, torch.Tensor) and bool(torch.isnan(leaf).any())
        for leaf in pytree.tree_leaves(outputs)
    )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode; afterwards every module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        model.train(modes[0][1])
        for module, mode in modes:
            module.training = mode

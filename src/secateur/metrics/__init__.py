"""What tells how good a model is; one file here is one metric, found by the registry.

    @metric("accuracy")
    class Accuracy:
        higher_is_better = True
        is_share = True
        def add(self, outputs, targets, loss): ...     # once per batch
        def value(self) -> float: ...

The user's own is a function (model, batches) -> float; see ``add_metric``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from secateur.errors import InputError
from secateur.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import nn

    from secateur.metrics._own import OwnMetric

Batches = Iterable[tuple[Any, Any]]
Loss = Callable[[Any, Any], "torch.Tensor"]


class Counter(Protocol):
    """Counts over the batches of one evaluation."""

    def add(self, outputs: Any, targets: Any, loss: float) -> None:
        """Take in a batch; loss is the mean over it. Errors: InputError for unfit shapes."""
        ...

    def value(self) -> float:
        """The metric of all batches so far."""
        ...


class Metric(Protocol):
    """What is registered: calling it starts a count.

    higher_is_better: whether more is better.
    is_share:         whether it lies in [0, 1] and differences are told in points.
    """

    @property
    def higher_is_better(self) -> bool: ...
    @property
    def is_share(self) -> bool: ...
    def __call__(self) -> Counter: ...


METRICS: Registry[Metric | OwnMetric] = Registry("metric", package="secateur.metrics")
metric = METRICS.register


def get_metric(name: str) -> Metric | OwnMetric:
    """The metric of that name. Errors: InputError for an unknown one."""
    if ":" in name and name.replace("_", "-") not in METRICS.names():
        raise InputError(
            f"metric {name!r} is a function that has not been added; call "
            f"add_metric({name!r}, function) first"
        )
    return METRICS.get(name)


def add_metric(
    name: str,
    function: Callable[[nn.Module, Batches], float],
    higher_is_better: bool | None = None,
    is_share: bool | None = None,
) -> None:
    """Make the user's function (model, batches) -> float a metric under ``name``.

    Where not given, both flags are read from the function's attributes of the same names, and are
    True and False without.
    """
    METRICS.register(name)(_metric_of(name, function, higher_is_better, is_share))


def lent_metric(
    name: str, function: Callable[[nn.Module, Batches], float]
) -> AbstractContextManager[str]:
    """A metric of the user's function for as long as a block runs, by a name that no other has:
    ``name`` where it is free. The flags are read from the function, as in ``add_metric``."""
    return METRICS.lent(name, lambda free: _metric_of(free, function))


def _metric_of(
    name: str,
    function: Callable[[nn.Module, Batches], float],
    higher_is_better: bool | None = None,
    is_share: bool | None = None,
) -> OwnMetric:
    from secateur.metrics._own import OwnMetric

    if higher_is_better is None:
        higher_is_better = bool(getattr(function, "higher_is_better", True))
    if is_share is None:
        is_share = bool(getattr(function, "is_share", False))
    return OwnMetric(name, function, higher_is_better, is_share)


def worsening(name: str, dense: float, value: float) -> float:
    """How much worse a value is than the dense model's, above 0 where it is worse.

    Of a share the difference (0.01 is one point); of any other metric, such as a mean error or a
    perplexity, the difference as a share of the dense value, for it has no points.
    """
    found = get_metric(name)
    less = dense - value if found.higher_is_better else value - dense
    if found.is_share or not less:
        return less
    return less / abs(dense) if dense else math.copysign(math.inf, less)


def told_worsening(name: str, less: float) -> str:
    """``1.20 points``, or ``1.20 %`` of a metric that is no share."""
    return f"{100 * less:.2f} {'points' if get_metric(name).is_share else '%'}"


def evaluate(
    model: nn.Module, batches: Batches, metric: str = "accuracy", loss: Loss | None = None
) -> dict[str, float]:
    """The metric by its name, ``loss`` (mean over samples) and ``count`` (of samples).

    The model is run in eval mode without gradients, and left in the mode that it was in.
    batches: (inputs, targets), already on the model's device.
    loss:    (outputs, targets) -> scalar, mean of the batch; cross-entropy for integer targets
             and mean squared error for floats without one.
    Where the model returns NaN the value is NaN: a broken model has no score.
    ``loss`` and ``count`` are those of all batches, also where a function of the user's reads none
    of them. It can read them again where ``batches`` is no iterator.
    Errors: InputError for an unknown metric, no batches, shapes that do not belong together, a
    function that reads an iterator to its end and then again.
    """
    from secateur.metrics import _evaluating

    return _evaluating.evaluate(model, batches, metric, loss)

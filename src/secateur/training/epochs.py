"""One epoch of a training: updates, validation, checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from secateur.errors import InputError, TrainingError
from secateur.training.augmentation import augment
from secateur.training.extensions import Moment, shown
from secateur.training.history import EpochReport, StepReport
from secateur.training.interrupts import Guard
from secateur.training.learning_rates import rate_factor
from secateur.training.loading import batches
from secateur.training.masks import hold
from secateur.training.optimizers import set_learning_rate
from secateur.training.randomness import undisturbed
from secateur.training.settings import FinetuneSettings
from secateur.training.state import TrainingState, model_tensors, save_state
from secateur.training.stepping import backward, compute_loss, prepare, step

Validate = Callable[[nn.Module], Mapping[str, float]]

MINUTE = 60.0  # seconds between checkpoints within an epoch
LOOK_EVERY = 16  # batches between two looks at the loss on a GPU, where each look waits for it


@dataclass(eq=False)
class Training:
    """The state with what stays the same: data, callbacks, and where checkpoints go."""

    state: TrainingState
    data: Dataset[Any]
    batches: int
    least: int
    guard: Guard
    path: Path | None
    validate: Validate | None
    on_epoch: Callable[[EpochReport], None] | None
    on_step: Callable[[StepReport], None] | None
    clock: float = field(default_factory=time.perf_counter)
    saved_at: float = field(default_factory=time.perf_counter)

    @property
    def settings(self) -> FinetuneSettings:
        return self.state.stepper.settings


def look_before(job: Training) -> None:
    """Validate the model as it was given: it stays where every epoch is worse. Not where methods
    take part, which have yet to give it its form."""
    state, settings = job.state, job.settings
    first = state.epoch == settings.begin_at and state.batch == 0 and not state.before
    if not first or not settings.keep_best or job.validate is None or state.stepper.extensions:
        return
    hold(state.stepper.masks)
    metrics = _validated(job, job.validate)
    if metrics and _is_best(job, metrics):
        _keep(job, settings.begin_at)
    state.before = metrics


def epoch(job: Training) -> None:
    """Train what is left of this epoch, validate, save."""
    state, settings, extensions = job.state, job.settings, job.state.stepper.extensions
    model = state.stepper.model
    job.clock = time.perf_counter()
    if state.batch < job.batches:
        model.train()
        _updates(job)
    _look(job)
    last = _moment(job, job.batches - 1)
    if not state.closed:
        for extension in extensions:
            extension.after_epoch(last)
        state.closed = True
    metrics: dict[str, float] = {}
    with shown(extensions):
        if job.validate is not None:
            metrics = _validated(job, job.validate)
        settled = all(extension.settled(last) for extension in extensions)
        best = settings.keep_best and settled and bool(metrics) and _is_best(job, metrics)
        if best:
            _keep(job, state.epoch + 1)
    _tick(job)
    details: dict[str, float] = {}
    for extension in extensions:
        details |= extension.report()
    report = EpochReport(
        epoch=state.epoch + 1,
        loss=state.loss_sum.item() / state.samples,
        metrics=metrics,
        learning_rate=last.learning_rate,
        samples=state.samples,
        seconds=state.seconds,
        best=best,
        details=details,
    )
    state.reports.append(report)
    state.epoch, state.batch, state.samples, state.seconds = state.epoch + 1, 0, 0, 0.0
    state.closed = False
    state.loss_sum.zero_()
    save(job)
    if job.on_epoch is not None:
        with undisturbed(state.stepper.device), job.guard.open():
            job.on_epoch(report)


def _validated(job: Training, validate: Validate) -> dict[str, float]:
    model = job.state.stepper.model
    model.eval()
    # Training does not depend on what a validation draws.
    with undisturbed(job.state.stepper.device), torch.no_grad(), job.guard.open():
        return _numbers(validate(model))


def _keep(job: Training, epoch: int) -> None:
    """The model as it is now is the best so far."""
    tensors = model_tensors(job.state.stepper.model)
    job.state.best = {name: tensor.clone() for name, tensor in tensors.items()}
    job.state.best_epoch = epoch


def _updates(job: Training) -> None:
    state, settings, stepper = job.state, job.settings, job.state.stepper
    stream = batches(
        job.data,
        settings.batch_size,
        seed=settings.seed,
        epoch=state.epoch,
        start=state.batch,
        device=stepper.device,
        least=job.least,
    )
    on_cpu = stepper.device.type == "cpu"
    while state.batch < job.batches:
        first = state.batch
        at = _moment(job, first)
        with job.guard.update():
            value = _update(job, stream, at)
        if not on_cpu and _crossed(first, state.batch, LOOK_EVERY):
            _look(job)
        if _due(job, first):
            save(job)
        if job.on_step is not None:
            report = StepReport(
                state.epoch + 1, settings.epochs, state.batch, job.batches, at.learning_rate, value
            )
            with job.guard.open():
                job.on_step(report)
        job.guard.check()


def _update(job: Training, stream: Iterator[Any], at: Moment) -> float | None:
    """One update, on one batch or on several; the mean loss, or None where reading it costs."""
    state, settings, stepper = job.state, job.settings, job.state.stepper
    size = settings.batch_size
    ends = range(state.batch + 1, state.batch + 1 + _window(job, state.batch))
    numbers = [min(size, state.data_size - (end - 1) * size) for end in ends]
    total, mean = sum(numbers), 0.0
    set_learning_rate(stepper.optimizer, at.learning_rate)
    prepare(stepper, at)
    for end, number in zip(ends, numbers, strict=True):
        inputs, targets = next(stream)
        inputs = augment(inputs, settings.augmentation, state.generator)
        loss = compute_loss(stepper, inputs, targets, at)
        if stepper.device.type == "cpu":
            value = loss.item()
            if not math.isfinite(value):
                raise _not_finite(job, end, value)
            mean += value * number / total
        backward(stepper, loss if number == total else loss * (number / total))
        state.loss_sum += loss.detach() * number
    step(stepper, at)
    state.samples += total
    state.batch += len(numbers)
    return mean if stepper.device.type == "cpu" else None


def _window(job: Training, batch: int) -> int:
    """How many batches the update has that ``batch`` is the first of."""
    return min(job.settings.accumulate, job.batches - batch)


def _moment(job: Training, batch: int) -> Moment:
    """The moment of the update that a batch of this epoch belongs to.

    Its learning rate is taken at its middle: the first is not 0, nor is the last.
    """
    settings, epoch = job.settings, job.state.epoch
    number = batch // settings.accumulate
    first = number * settings.accumulate
    step = epoch * job.batches + first + 0.5 * _window(job, first)
    factor = rate_factor(
        settings.schedule, step / (settings.epochs * job.batches), settings.warmup
    )  # fmt: skip
    each = -(-job.batches // settings.accumulate)
    return Moment(
        epoch * each + number, settings.epochs * each, epoch, settings.epochs,
        settings.learning_rate * factor,
    )  # fmt: skip


def _crossed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of ``every`` lies in (before, after]."""
    return before // every != after // every


def _look(job: Training) -> None:
    """Errors: TrainingError when a loss of this epoch was not finite."""
    total = job.state.loss_sum.item()
    if not math.isfinite(total):
        job.guard.torn = True  # such weights are not worth a checkpoint
        raise _not_finite(job, job.state.batch, total)


def _not_finite(job: Training, batch: int, value: float) -> TrainingError:
    return TrainingError(
        f"the loss is {value} in epoch {job.state.epoch + 1}, batch {batch} of {job.batches}; try "
        f"a learning rate below {job.settings.learning_rate:g}, a gradient_clip of 1, a warmup, "
        "or look for values in the data that are not finite"
    )


def _numbers(metrics: Any) -> dict[str, float]:
    if not isinstance(metrics, Mapping):
        raise InputError(
            f"validate returned a {type(metrics).__name__}; expected a dict such as "
            '{"accuracy": 0.9}'
        )
    return {str(name): float(value) for name, value in metrics.items()}


def _is_best(job: Training, metrics: dict[str, float]) -> bool:
    """Whether the model is better now than the best so far; a metric that is NaN never is."""
    name = job.settings.best_by or next(iter(metrics))
    if name not in metrics:
        raise InputError(f"validate returned {', '.join(metrics)}, and best_by is {name!r}")
    value, best = metrics[name], job.state.best_epoch
    if math.isnan(value):
        return False
    if best is None:
        return True
    if best == job.settings.begin_at:  # an epoch that is as good as no training has it
        before = job.state.before[name]
        return value >= before if job.settings.higher_is_better else value <= before
    before = next(r for r in job.state.reports if r.epoch == best).metrics[name]
    return value > before if job.settings.higher_is_better else value < before


def _due(job: Training, before: int) -> bool:
    if job.path is None:
        return False
    every = job.settings.checkpoint_every
    if every is None:
        return time.perf_counter() - job.saved_at >= MINUTE
    done = job.state.epoch * job.batches
    return _crossed(done + before, done + job.state.batch, every)


def save(job: Training) -> None:
    """Write a checkpoint where there is a place for one."""
    if job.path is not None:
        _tick(job)
        _look(job)
        save_state(job.path, job.state)
        job.saved_at = time.perf_counter()


def _tick(job: Training) -> None:
    """Add the time since the last tick to this epoch."""
    now = time.perf_counter()
    job.state.seconds += now - job.clock
    job.clock = now

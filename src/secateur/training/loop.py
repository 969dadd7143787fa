"""``finetune``: train a model, be interrupted at any moment, and go on bit by bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from secateur.errors import InputError, TrainingError
from secateur.training.augmentation import augment
from secateur.training.devices import device_of, resolve, visiting
from secateur.training.history import EpochReport, History, StepReport
from secateur.training.interrupts import Guard, guarded
from secateur.training.layouts import with_safe_layout
from secateur.training.learning_rates import rate_factor
from secateur.training.loading import batches, count_batches, count_samples, resident, stream_seed
from secateur.training.losses import Loss
from secateur.training.optimizers import set_learning_rate
from secateur.training.randomness import seed_all, undisturbed
from secateur.training.settings import FinetuneSettings
from secateur.training.state import (
    TrainingState,
    load_state,
    model_tensors,
    put_tensors,
    save_state,
)
from secateur.training.stepping import compute_loss, make_stepper, update

Validate = Callable[[nn.Module], Mapping[str, float]]

MINUTE = 60.0  # seconds between checkpoints within an epoch
LOOK_EVERY = 16  # batches between two looks at the loss on a GPU, where each look waits for it


def finetune(
    model: nn.Module,
    data_train: Dataset[Any],
    settings: FinetuneSettings | None = None,
    *,
    teacher: nn.Module | None = None,
    validate: Validate | None = None,
    loss: Loss | None = None,
    checkpoint: Path | str | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    device: torch.device | str | None = None,
    masks: Mapping[str, torch.Tensor] | None = None,
) -> History:
    """Train ``model`` in place; it comes back on the device and in the mode it was given in.

    data_train: samples are (input, target).
    teacher:    the dense model; with ``settings.distill`` alone, and never changed.
    validate:   called in eval mode and without gradients after each epoch.
    loss:       of (outputs, targets); cross-entropy or mean squared error without one.
    checkpoint: a file; where it exists, the training goes on from it and ends with the weights
                of one that was never interrupted, bit by bit on a CPU. Use one file for each
                training; it stays when the training is done. Ctrl-C writes it and is raised
                again.
    on_epoch, on_step: called after each epoch and update; what they raise ends the training.
                on_step is for progress, and must draw no random numbers.
    device:     where to train; where the model is without one.
    masks:      by the names of parameters, True where an element is trained; the others are zero.

    The global random generators are seeded with ``settings.seed`` and put back at the end.
    Errors: InputError for arguments that do not belong together or another training's
    checkpoint; TrainingError when the loss is no longer finite.
    """
    settings = settings or FinetuneSettings()
    if (teacher is None) != (settings.distill is None):
        given, missing = ("settings.distill", "teacher") if settings.distill else (
            "a teacher", "settings.distill"
        )  # fmt: skip
        raise InputError(f"distillation wants both: {given} is there, {missing} is not")
    place = device_of(model) if device is None else resolve(device)
    with ExitStack() as stack:
        stack.enter_context(undisturbed(place))
        settings = _laid_out(settings, model, data_train, place)
        stack.enter_context(visiting(model, place, settings.channels_last))
        if teacher is not None:
            stack.enter_context(visiting(teacher, place, settings.channels_last))
            teacher.eval()
        guard = stack.enter_context(guarded())
        seed_all(settings.seed)
        size = count_samples(data_train)
        least = min(2, settings.batch_size)
        state = TrainingState(
            stepper=make_stepper(model, settings, loss, teacher, masks),
            data_size=size,
            generator=torch.Generator(place).manual_seed(stream_seed(settings.seed, 0, 1)),
            loss_sum=torch.zeros((), dtype=torch.float64, device=place),
        )
        path = None if checkpoint is None else Path(checkpoint)
        if path is not None and path.exists():
            load_state(path, state)
        job = _Training(
            state=state,
            data=resident(data_train, place),
            batches=count_batches(size, settings.batch_size, least),
            least=least,
            guard=guard,
            path=path,
            validate=validate,
            on_epoch=on_epoch,
            on_step=on_step,
        )
        try:
            while state.epoch < settings.epochs:
                _epoch(job)
        except KeyboardInterrupt:
            if not guard.torn:
                _save(job)
            raise
        if state.best:
            put_tensors(model, state.best)
        return History(tuple(state.reports), state.best_epoch or settings.epochs)


@dataclass(eq=False)
class _Training:
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


def _laid_out(
    settings: FinetuneSettings, model: nn.Module, data: Dataset[Any], device: torch.device
) -> FinetuneSettings:
    if not settings.channels_last:
        return settings
    inputs, _ = next(batches(data, 2, device=device_of(model)))
    return with_safe_layout(settings, model, inputs, device)


def _epoch(job: _Training) -> None:
    """Train what is left of this epoch, validate, save."""
    state, settings = job.state, job.settings
    model = state.stepper.model
    job.clock = time.perf_counter()
    if state.batch < job.batches:
        model.train()
        _updates(job)
    _look(job)
    metrics: dict[str, float] = {}
    if job.validate is not None:
        model.eval()
        # Training does not depend on what a validation draws.
        with undisturbed(state.stepper.device), torch.no_grad(), job.guard.open():
            metrics = _numbers(job.validate(model))
    best = settings.keep_best and bool(metrics) and _is_best(job, metrics)
    _tick(job)
    report = EpochReport(
        epoch=state.epoch + 1,
        loss=state.loss_sum.item() / state.samples,
        metrics=metrics,
        learning_rate=_learning_rate(job, job.batches - 1),
        samples=state.samples,
        seconds=state.seconds,
        best=best,
    )
    if best:
        state.best = {name: t.clone() for name, t in model_tensors(model).items()}
        state.best_epoch = report.epoch
    state.reports.append(report)
    state.epoch, state.batch, state.samples, state.seconds = state.epoch + 1, 0, 0, 0.0
    state.loss_sum.zero_()
    _save(job)
    if job.on_epoch is not None:
        with undisturbed(state.stepper.device), job.guard.open():
            job.on_epoch(report)


def _updates(job: _Training) -> None:
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
        with job.guard.update():
            inputs, targets = next(stream)
            inputs = augment(inputs, settings.augmentation, state.generator)
            rate = _learning_rate(job, state.batch)
            set_learning_rate(stepper.optimizer, rate)
            loss = compute_loss(stepper, inputs, targets)
            value = loss.item() if on_cpu else None
            if value is not None and not math.isfinite(value):
                raise _not_finite(job, state.batch + 1, value)
            update(stepper, loss)
            number = min(settings.batch_size, state.data_size - state.batch * settings.batch_size)
            state.loss_sum += loss.detach() * number
            state.samples += number
            state.batch += 1
        if not on_cpu and state.batch % LOOK_EVERY == 0:
            _look(job)
        if _due(job):
            _save(job)
        if job.on_step is not None:
            report = StepReport(
                state.epoch + 1, settings.epochs, state.batch, job.batches, rate, value
            )
            with job.guard.open():
                job.on_step(report)
        job.guard.check()


def _learning_rate(job: _Training, batch: int) -> float:
    """Of the update on this batch, taken at its middle: the first is not 0, nor is the last."""
    step = job.state.epoch * job.batches + batch
    progress = (step + 0.5) / (job.settings.epochs * job.batches)
    return job.settings.learning_rate * rate_factor(
        job.settings.schedule, progress, job.settings.warmup
    )


def _look(job: _Training) -> None:
    """Errors: TrainingError when a loss of this epoch was not finite."""
    total = job.state.loss_sum.item()
    if not math.isfinite(total):
        job.guard.torn = True  # such weights are not worth a checkpoint
        raise _not_finite(job, job.state.batch, total)


def _not_finite(job: _Training, batch: int, value: float) -> TrainingError:
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


def _is_best(job: _Training, metrics: dict[str, float]) -> bool:
    """Whether this epoch is better than the best so far; a metric that is NaN never is."""
    name = job.settings.best_by or next(iter(metrics))
    if name not in metrics:
        raise InputError(f"validate returned {', '.join(metrics)}, and best_by is {name!r}")
    value, best = metrics[name], job.state.best_epoch
    if math.isnan(value):
        return False
    if best is None:
        return True
    before = job.state.reports[best - 1].metrics[name]
    return value > before if job.settings.higher_is_better else value < before


def _due(job: _Training) -> bool:
    if job.path is None:
        return False
    every = job.settings.checkpoint_every
    if every is None:
        return time.perf_counter() - job.saved_at >= MINUTE
    return (job.state.epoch * job.batches + job.state.batch) % every == 0


def _save(job: _Training) -> None:
    if job.path is not None:
        _tick(job)
        _look(job)
        save_state(job.path, job.state)
        job.saved_at = time.perf_counter()


def _tick(job: _Training) -> None:
    """Add the time since the last tick to this epoch."""
    now = time.perf_counter()
    job.state.seconds += now - job.clock
    job.clock = now

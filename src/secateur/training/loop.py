"""``finetune``: train a model, be interrupted at any moment, and go on bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from secateur.errors import InputError
from secateur.structure.structure import Structure
from secateur.training.devices import device_of, resolve, visiting
from secateur.training.epochs import Training, Validate, epoch, look_before, save
from secateur.training.extensions import Method, joined
from secateur.training.history import EpochReport, History, StepReport
from secateur.training.interrupts import guarded
from secateur.training.layouts import with_safe_layout
from secateur.training.loading import batches, count_batches, count_samples, resident, stream_seed
from secateur.training.losses import Loss
from secateur.training.randomness import seed_all, undisturbed
from secateur.training.settings import FinetuneSettings
from secateur.training.state import TrainingState, load_state, put_tensors
from secateur.training.stepping import make_stepper


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
    methods: Sequence[Method] = (),
    structure: Structure | None = None,
    channels: Mapping[str, torch.Tensor] | None = None,
) -> History:
    """Train ``model`` in place; it comes back on the device and in the mode it was given in.

    data_train: samples are (input, target).
    teacher:    the dense model; with ``settings.distill`` alone, and never changed.
    validate:   called in eval mode and without gradients after each epoch; with
                ``settings.keep_best`` and without methods before the first one too.
    loss:       of (outputs, targets); cross-entropy or mean squared error without one.
    checkpoint: a file; where it exists, the training goes on from it and ends with the weights
                of one that was never interrupted, bit by bit on a CPU. Use one file for each
                training; it stays when the training is done. Ctrl-C writes it and is raised
                again.
    on_epoch, on_step: called after each epoch and update; what they raise ends the training.
                on_step is for progress, and must draw no random numbers.
    device:     where to train; where the model is without one.
    masks:      by the names of parameters, True where an element is trained; the others are zero.
    methods:    what takes part in every update, such as a regulariser; see ``extensions.py``.
    structure:  of this model, for methods that work on units.
    channels:   module -> channels of the teacher that the model has (``surviving_channels``).

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
            stepper=make_stepper(
                model, settings, loss, teacher, masks, methods, structure, channels
            ),
            data_size=size,
            generator=torch.Generator(place).manual_seed(stream_seed(settings.seed, 0, 1)),
            loss_sum=torch.zeros((), dtype=torch.float64, device=place),
            epoch=settings.begin_at,
        )
        for tap in state.stepper.taps or ():
            stack.callback(tap.close)
        path = None if checkpoint is None else Path(checkpoint)
        if path is not None and path.exists():
            load_state(path, state)
        job = Training(
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
            look_before(job)
            while state.epoch < settings.epochs:
                epoch(job)
        except KeyboardInterrupt:
            if not guard.torn:
                save(job)
            raise
        extensions = state.stepper.extensions
        if state.best:
            put_tensors(model, state.best)
        else:
            for extension in extensions:
                extension.show()  # for good
        outcome = joined([extension.finish() for extension in extensions])
        kept = settings.epochs if state.best_epoch is None else state.best_epoch
        return History(tuple(state.reports), kept, outcome.masks, outcome.remove, state.before)


def _laid_out(
    settings: FinetuneSettings, model: nn.Module, data: Dataset[Any], device: torch.device
) -> FinetuneSettings:
    if not settings.channels_last:
        return settings
    inputs, _ = next(batches(data, 2, device=device_of(model)))
    return with_safe_layout(settings, model, inputs, device)

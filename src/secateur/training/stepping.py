"""One update of the weights, and how long it takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from secateur.errors import InputError
from secateur.structure.copying import copied
from secateur.structure.structure import Structure
from secateur.training.devices import device_of, synchronize
from secateur.training.distillation import distillation_loss
from secateur.training.extensions import Batch as Answered
from secateur.training.extensions import Extension, Method, Moment, begin_all
from secateur.training.features import Taps, attention_loss, feature_loss
from secateur.training.layouts import channels_last, with_safe_layout
from secateur.training.loading import Batch, forward, move
from secateur.training.losses import Loss, default_loss
from secateur.training.masks import hold, placed
from secateur.training.optimizers import make_optimizer
from secateur.training.randomness import undisturbed
from secateur.training.settings import FinetuneSettings

LEAST = (1, 3)  # updates that do not count, and that do, where each takes long


@dataclass(frozen=True, eq=False)
class Stepper:
    """All that an update needs, made once for a training.

    precision: what autocast computes in; None where it is off.
    scaler:    scales the loss so that fp16 gradients do not vanish; does nothing otherwise.
    masks:     parameters whose elements stay zero where the mask is.
    methods:   settings of the extensions, each of which has a generator of its own.
    taps:      on modules of the model and of the teacher, where features are distilled.
    channels:  module -> channels of the teacher that the model has.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    settings: FinetuneSettings
    device: torch.device
    precision: torch.dtype | None
    scaler: torch.amp.GradScaler  # type: ignore[name-defined]
    teacher: nn.Module | None = None
    masks: tuple[tuple[nn.Parameter, torch.Tensor], ...] = ()
    methods: tuple[Method, ...] = ()
    extensions: tuple[Extension, ...] = ()
    generators: tuple[torch.Generator, ...] = ()
    taps: tuple[Taps, Taps] | None = None
    channels: Mapping[str, torch.Tensor] = field(default_factory=dict)


def make_stepper(
    model: nn.Module,
    settings: FinetuneSettings,
    loss: Loss | None = None,
    teacher: nn.Module | None = None,
    masks: Mapping[str, torch.Tensor] | None = None,
    methods: Sequence[Method] = (),
    structure: Structure | None = None,
    channels: Mapping[str, torch.Tensor] | None = None,
) -> Stepper:
    """A stepper for a model where it stands.

    masks:   by the names of parameters, True where an element is trained.
    methods: what takes part in every update; ``structure`` is for those that work on units.
    channels: module -> channels of the teacher that the model has, to distil features.
    Errors: InputError for a model without parameters, and for masks of no parameter or shape.
    """
    device = device_of(model)
    precision = _precision(settings.mixed_precision, model, device)
    optimizer = make_optimizer(
        model,
        settings.optimizer,
        settings.learning_rate,
        settings.momentum,
        settings.weight_decay,
        scaled=precision is torch.float16,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=precision is torch.float16)
    loss = loss or partial(default_loss, label_smoothing=settings.label_smoothing)
    held = placed(model, masks or {}, device)
    extensions, generators = begin_all(
        methods, model, optimizer, structure, settings.seed, device
    )  # fmt: skip
    return Stepper(
        model, optimizer, loss, settings, device, precision, scaler, teacher, held, tuple(methods),
        extensions, generators, _tapped(model, teacher, settings, channels), channels or {},
    )  # fmt: skip


def _tapped(
    model: nn.Module,
    teacher: nn.Module | None,
    settings: FinetuneSettings,
    channels: Mapping[str, torch.Tensor] | None,
) -> tuple[Taps, Taps] | None:
    distill = settings.distill
    if teacher is None or distill is None or not (distill.features or distill.attention):
        return None
    names = distill.at or tuple(channels or ())
    if not names:
        raise InputError(
            "features are distilled at modules: name some with distill_at, or give channels="
            "surviving_channels(structure, plan.remove)"
        )
    return Taps(model, names, "model"), Taps(teacher, names, "teacher")


def compute_loss(
    stepper: Stepper, inputs: Any, targets: Any, at: Moment | None = None
) -> torch.Tensor:
    """The loss of one batch with its graph: a scalar; with penalties where ``at`` says when."""
    enabled = stepper.precision is not None
    if stepper.settings.channels_last:
        inputs = channels_last(inputs)
    with torch.autocast(stepper.device.type, dtype=stepper.precision, enabled=enabled):
        outputs = forward(stepper.model, inputs)
        loss = _data_loss(stepper, inputs, targets, outputs)
        if at is not None:
            for extension in stepper.extensions:
                more = extension.penalty(at, Answered(inputs, targets, outputs))
                loss = loss if more is None else loss + more
    return loss


def _data_loss(stepper: Stepper, inputs: Any, targets: Any, outputs: Any) -> torch.Tensor:
    distill = stepper.settings.distill
    if stepper.teacher is None or distill is None:
        return stepper.loss(outputs, targets)
    with torch.no_grad():
        taught = forward(stepper.teacher, inputs)
    taught_loss = distillation_loss(outputs, taught, targets, distill.temperature)
    inner = _inner_loss(stepper)
    if distill.alpha == 1:
        return taught_loss if inner is None else taught_loss + inner
    own = (1 - distill.alpha) * stepper.loss(outputs, targets)
    total = own + distill.alpha * taught_loss
    return total if inner is None else total + inner


def _inner_loss(stepper: Stepper) -> torch.Tensor | None:
    """What modules inside answer, against the teacher's."""
    distill = stepper.settings.distill
    if stepper.taps is None or distill is None:
        return None
    ours, theirs = (tap.taken() for tap in stepper.taps)
    parts = []
    if distill.features:
        parts.append(distill.features * feature_loss(ours, theirs, stepper.channels))
    if distill.attention:
        # without names only modules that answer at places have a map
        chosen = ours if distill.at else {n: t for n, t in ours.items() if t.dim() > 2}
        parts.append(distill.attention * attention_loss(chosen, theirs))
    return torch.stack(parts).sum()


def prepare(stepper: Stepper, at: Moment | None = None) -> None:
    """Before the passes of an update: no gradients, weights as extensions want them."""
    stepper.optimizer.zero_grad(set_to_none=True)
    if at is not None:
        for extension in stepper.extensions:
            extension.before_forward(at)


def backward(stepper: Stepper, loss: torch.Tensor) -> None:
    """Add the gradients of ``loss`` to those of the update."""
    stepper.scaler.scale(loss).backward()


def step(stepper: Stepper, at: Moment | None = None) -> None:
    """One step of the optimizer along the gradients that are there."""
    clip = stepper.settings.gradient_clip
    if clip is not None or stepper.extensions:
        stepper.scaler.unscale_(stepper.optimizer)
    if at is not None:
        for extension in reversed(stepper.extensions):
            extension.after_backward(at)
    if clip is not None:
        nn.utils.clip_grad_norm_(stepper.model.parameters(), clip)
    stepper.scaler.step(stepper.optimizer)
    stepper.scaler.update()
    if at is not None:
        for extension in stepper.extensions:
            extension.after_step(at)
    hold(stepper.masks)  # momentum and decay move what no gradient moves


def time_step(
    model: nn.Module,
    batch: Batch,
    settings: FinetuneSettings | None = None,
    *,
    loss: Loss | None = None,
    repeats: int = 10,
    warmup: int = 3,
    most: float = 8.0,
) -> float:
    """Median seconds of one update on ``batch`` (inputs, targets), on the model's device.

    A copy is trained; the model and the global random generators stay as they are.
    repeats, warmup: updates that count, and updates before them that do not. most: seconds after
    which a slow one is believed: one update before it and three that count are always made.
    Errors: InputError for a model without parameters, or fewer than one repeat.
    """
    if repeats < 1 or warmup < 0:
        raise InputError(f"repeats is {repeats} and warmup {warmup}; give at least 1 and 0")
    copy = copied(model).train()
    with undisturbed(device_of(model)):
        settings = with_safe_layout(
            settings or FinetuneSettings(), copy, move(batch[0], device_of(model)), device_of(model)
        )
    if settings.channels_last:
        copy.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    stepper = make_stepper(copy, settings, loss)
    inputs, targets = move(batch[0], stepper.device), move(batch[1], stepper.device)
    seconds: list[float] = []
    with undisturbed(stepper.device):
        while len(seconds) < warmup + repeats:
            synchronize(stepper.device)
            began = time.perf_counter()
            prepare(stepper)
            backward(stepper, compute_loss(stepper, inputs, targets))
            step(stepper)
            synchronize(stepper.device)
            seconds.append(time.perf_counter() - began)
            if sum(seconds) > most and len(seconds) >= LEAST[0] + LEAST[1]:
                break
    woken = warmup if len(seconds) == warmup + repeats else min(warmup, LEAST[0])
    return statistics.median(seconds[woken:])


def _precision(wanted: str, model: nn.Module, device: torch.device) -> torch.dtype | None:
    if wanted == "auto":
        whole = all(p.dtype == torch.float32 for p in model.parameters())
        if device.type != "cuda" or not whole:
            return None
        return (
            torch.bfloat16
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else torch.float16
        )
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[wanted]

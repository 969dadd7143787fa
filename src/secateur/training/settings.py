"""All that decides how a model is fine-tuned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from secateur.errors import InputError
from secateur.registry import unknown
from secateur.training import optimizers
from secateur.training.augmentation import Augmentation
from secateur.training.distillation import Distillation
from secateur.training.learning_rates import rate_factor

Optimizer = Literal["sgd", "adam", "adamw"]
Schedule = Literal["constant", "linear", "cosine", "step", "onecycle"]
MixedPrecision = Literal["auto", "off", "bf16", "fp16"]


@dataclass(frozen=True)
class FinetuneSettings:
    """How a model is fine-tuned; equal settings, data and seed give equal weights on a CPU.

    epochs, batch_size: at least 1; a last batch of one sample is left out.
    begin_at:         epochs that count as done: the schedule and the order of samples go on there.
    accumulate:       batches whose gradients make one update, weighted by their samples: without
                      batch norm the update of one large batch. What is left at an epoch's end is
                      an update too.
    optimizer:        sgd, adam or adamw.
    learning_rate:    the highest of the schedule.
    momentum:         of sgd; the first beta of adam and adamw.
    weight_decay:     for tensors of two dimensions or more.
    schedule, warmup: see ``learning_rates.rate_factor``; warmup is a share of the training.
    label_smoothing:  share in [0, 1); for classes alone.
    gradient_clip:    largest norm of all gradients together, or None.
    distill:          how much the teacher counts, or None.
    mixed_precision:  auto (bf16, or else fp16, on a GPU; off on a CPU), off, bf16 or fp16.
    channels_last:    keep images and kernels in that layout while training, where that is safe
                      (see ``layouts.py``).
    keep_best:        end with the weights of the epoch that validated best, or as given where all
                      epochs are worse and no methods take part.
    best_by:          which metric says so; the first that ``validate`` returns without a name.
    higher_is_better: of that metric.
    checkpoint_every: in batches; None is once an epoch and after each minute. No result depends
                      on it.
    Errors: InputError for a value out of range.
    """

    epochs: int = 10
    batch_size: int = 128
    begin_at: int = 0
    accumulate: int = 1
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = "cosine"
    warmup: float = 0.0
    label_smoothing: float = 0.0
    gradient_clip: float | None = None
    distill: Distillation | None = None
    augmentation: Augmentation = Augmentation()  # noqa: RUF009 (frozen)
    mixed_precision: MixedPrecision = "auto"
    channels_last: bool = False
    seed: int = 0
    keep_best: bool = True
    best_by: str | None = None
    higher_is_better: bool = True
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and (value < 1 or value != int(value)):
                raise InputError(f"{name} is {value}; give a whole number from 1 up")
        if not 0 <= self.begin_at < self.epochs or self.begin_at != int(self.begin_at):
            raise InputError(
                f"begin_at is {self.begin_at} of {self.epochs} epochs; give a whole number from 0 "
                "to below that"
            )
        optimizers.check(self.optimizer, self.learning_rate, self.momentum, self.weight_decay)
        rate_factor(self.schedule, 0.0, self.warmup)
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing is {self.label_smoothing}; give a share in [0, 1)")
        if self.gradient_clip is not None and not 0 < self.gradient_clip < math.inf:
            raise InputError(
                f"gradient_clip is {self.gradient_clip}; give a number above 0, or None"
            )
        if self.mixed_precision not in get_args(MixedPrecision):
            raise InputError(
                unknown("mixed_precision", self.mixed_precision, get_args(MixedPrecision))
            )
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; give a whole number from 0 up")

"""Knowledge distillation: what the dense model says, as a second target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from secateur.errors import InputError
from secateur.training.losses import IGNORED, class_dimension, is_classes, logits_of


@dataclass(frozen=True)
class Distillation:
    """How much the teacher counts.

    alpha:       share of the teacher's answers in the loss, in [0, 1]; the targets have the rest.
    temperature: divides the logits of both, above 0; it counts for classes alone.
    features, attention: weights of the losses of what modules answer (``features.py``), added.
    at:          modules that these read; those that make units where it is empty.
    """

    alpha: float = 0.5
    temperature: float = 4.0
    features: float = 0.0
    attention: float = 0.0
    at: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise InputError(f"distillation alpha is {self.alpha}; give a share in [0, 1]")
        for name in ("features", "attention"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"distillation {name} is {getattr(self, name)}; give 0 or more")
        if not (self.alpha or self.features or self.attention):
            raise InputError("distillation wants alpha, features or attention above 0")
        if not 0 < self.temperature < math.inf:
            raise InputError(
                f"distillation temperature is {self.temperature}; give a number above 0, such as 4"
            )


def distillation_loss(
    outputs: Any, taught: Any, targets: torch.Tensor, temperature: float
) -> torch.Tensor:
    """How far the student's outputs are from the teacher's ``taught``, a scalar.

    For integer targets the Kullback-Leibler divergence of the softened distributions, averaged
    over samples and positions except those with target -100, times temperature² (Hinton et al.
    2015: gradients then keep their size at any temperature). For float targets the mean squared
    error to the teacher.
    Errors: InputError where the two outputs differ in shape.
    """
    student, teacher = logits_of(outputs), logits_of(taught).to(logits_of(outputs).dtype)
    if student.shape != teacher.shape:
        raise InputError(
            f"the teacher returns {list(teacher.shape)} and the model {list(student.shape)}; "
            "expected the same shape"
        )
    if not is_classes(targets):
        return functional.mse_loss(student, teacher)
    dimension = class_dimension(student, targets)
    ours = (student / temperature).log_softmax(dimension)
    theirs = (teacher / temperature).log_softmax(dimension)
    divergence = functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(dimension)
    counted = targets != IGNORED
    return (divergence * counted).sum() * temperature**2 / counted.sum().clamp(min=1)

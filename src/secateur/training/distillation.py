"""Knowledge distillation: what the dense model says, as a second target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.utils import _pytree as pytree

from secateur.errors import InputError
from secateur.training.losses import IGNORED, found_dimension, logits_of


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


def distillation_loss(outputs: Any, taught: Any, targets: Any, temperature: float) -> torch.Tensor:
    """How far the student's outputs are from the teacher's ``taught``, a scalar.

    For integer targets the Kullback-Leibler divergence of the softened distributions, averaged
    over samples and positions except those with target -100, times temperature² (Hinton et al.
    2015: gradients then keep their size at any temperature). For other targets in one tensor the
    mean squared error to the teacher. For targets in several, the mean over all outputs of that
    error over the teacher's mean square, so that no head drowns the others.
    Errors: InputError where the two outputs differ in shape.
    """
    if not isinstance(targets, torch.Tensor):
        return _all_heads(outputs, taught)
    student, teacher = logits_of(outputs), logits_of(taught).to(logits_of(outputs).dtype)
    _same_shape(student, teacher)
    dimension = found_dimension(student, targets)
    if dimension is None:
        return functional.mse_loss(student, teacher)
    ours = (student / temperature).log_softmax(dimension)
    theirs = (teacher / temperature).log_softmax(dimension)
    divergence = functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(dimension)
    counted = targets != IGNORED
    return (divergence * counted).sum() * temperature**2 / counted.sum().clamp(min=1)


def _all_heads(outputs: Any, taught: Any) -> torch.Tensor:
    pairs = [
        (student, teacher.to(student.dtype))
        for student, teacher in zip(
            pytree.tree_leaves(outputs), pytree.tree_leaves(taught), strict=True
        )
        if isinstance(student, torch.Tensor) and student.is_floating_point()
    ]
    if not pairs:
        raise InputError("the model returns no values that could be distilled; set distill to 0")
    errors = []
    for student, teacher in pairs:
        _same_shape(student, teacher)
        size = teacher.square().mean().clamp(min=1e-12)
        errors.append(functional.mse_loss(student, teacher) / size)
    return torch.stack(errors).mean()


def _same_shape(student: torch.Tensor, teacher: torch.Tensor) -> None:
    if student.shape != teacher.shape:
        raise InputError(
            f"the teacher returns {list(teacher.shape)} and the model {list(student.shape)}; "
            "expected the same shape"
        )

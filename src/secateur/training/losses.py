"""Losses: cross-entropy where targets are whole numbers, mean squared error where they are not.

Whole numbers with one logit each are answers of yes or no: binary cross-entropy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional

from secateur.errors import InputError

Loss = Callable[[Any, Any], torch.Tensor]

IGNORED = -100  # the class of positions that do not count, as in PyTorch


def default_loss(outputs: Any, targets: Any, label_smoothing: float = 0.0) -> torch.Tensor:
    """Mean loss of a batch, a scalar; integer targets are classes, float targets are values.

    outputs: [N, C] or [N, C, ...] or [N, ..., C] logits for classes (``class_dimension``), the
             targets' shape for values, and for labels of 0 and 1 (``binary_logits``); also a
             mapping or tuple that holds them.
    label_smoothing: share in [0, 1) of the target spread over all classes.
    Errors: InputError for shapes that do not belong together.
    """
    logits = logits_of(outputs)
    if not isinstance(targets, torch.Tensor):
        raise InputError(
            f"targets are a {type(targets).__name__}; the default loss wants a tensor: give a "
            "loss of your own, as 'loss: file.py:function' or loss=..."
        )
    binary = binary_logits(logits, targets)
    if binary is not None:
        labels = targets.to(binary.dtype)
        counted = targets != IGNORED
        # label smoothing of two classes
        labels = labels * (1 - label_smoothing) + label_smoothing / 2
        losses = functional.binary_cross_entropy_with_logits(binary, labels, reduction="none")
        return (losses * counted).sum() / counted.sum()
    if is_classes(targets):
        dimension = class_dimension(logits, targets)
        return functional.cross_entropy(
            logits.movedim(dimension, 1),
            targets.long(),
            ignore_index=IGNORED,
            label_smoothing=label_smoothing,
        )
    if label_smoothing:
        raise InputError("label_smoothing is for classes, and the targets are floats; set it to 0")
    return functional.mse_loss(logits, _as_values(targets, logits))


def logits_of(outputs: Any) -> torch.Tensor:
    """The tensor a model is trained on: its output, ``logits`` of a mapping, the first of a tuple.

    Errors: InputError where there is none.
    """
    found = outputs
    if isinstance(found, Mapping):
        found = found["logits"] if "logits" in found else next(iter(found.values()), None)
    elif isinstance(found, (tuple, list)) and found:
        found = found[0]
    if isinstance(found, torch.Tensor):
        return found
    raise InputError(
        f"the model returns a {type(outputs).__name__} without a tensor in its first place; give "
        "a loss of your own"
    )


def is_classes(targets: torch.Tensor) -> bool:
    """Whether targets are numbers of classes: any integer type."""
    return not (targets.is_floating_point() or targets.is_complex())


def class_dimension(logits: torch.Tensor, targets: torch.Tensor) -> int:
    """The dimension of ``logits`` that counts classes: 1, or the last for [N, ..., C].

    Where both would fit ([N, C, C] and targets [N, C]) it is 1, as in PyTorch.
    Errors: InputError where neither fits.
    """
    found = found_dimension(logits, targets)
    if found is None:
        raise InputError(
            f"the model returns {list(logits.shape)} for integer targets {list(targets.shape)}; "
            "expected one dimension more, that of the classes: [N, C] for [N]; or give 'loss' for "
            "another"
        )
    return found


def found_dimension(outputs: Any, targets: Any) -> int | None:
    """The dimension of the logits that counts classes; None where the answers are none of classes:
    targets that are no integers, one logit for each target, or shapes that do not belong together.
    """
    if not isinstance(targets, torch.Tensor) or not is_classes(targets):
        return None
    found = _dimension(logits_of(outputs), targets)
    return None if found is None or logits_of(outputs).shape[found] == 1 else found


def binary_logits(outputs: Any, targets: Any) -> torch.Tensor | None:
    """The logits of yes in the shape of integer targets, where there is one for each of them: [N]
    or [N, 1] for [N], [N, K] for K labels that do not exclude each other. None for all else.

    Errors: InputError for targets that are neither 0 nor 1.
    """
    if not isinstance(targets, torch.Tensor) or not is_classes(targets):
        return None
    logits = logits_of(outputs)
    found = _dimension(logits, targets)
    if logits.shape != targets.shape and (found is None or logits.shape[found] != 1):
        return None
    if bool(((targets != 0) & (targets != 1) & (targets != IGNORED)).any()):
        wrong = targets[(targets != 0) & (targets != 1) & (targets != IGNORED)].flatten()[0]
        raise InputError(
            f"the model returns {list(logits.shape)}, one number for each integer target, and a "
            f"target is {int(wrong)}; expected 0 or 1: give targets as floats where they are "
            "values, or the model an output for each class"
        )
    return logits.reshape(targets.shape)


def _dimension(logits: torch.Tensor, targets: torch.Tensor) -> int | None:
    shape, wanted = tuple(logits.shape), tuple(targets.shape)
    if len(shape) == len(wanted) + 1 and len(shape) > 1:
        if shape[:1] + shape[2:] == wanted:
            return 1
        if shape[:-1] == wanted:
            return len(shape) - 1
    return None


def _as_values(targets: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """Float targets in the shape and type of the outputs; [N] and [N, 1] are the same."""

    def essential(tensor: torch.Tensor) -> list[int]:
        return [size for size in tensor.shape[1:] if size != 1]

    if targets.shape[:1] != outputs.shape[:1] or essential(targets) != essential(outputs):
        raise InputError(
            f"the model returns {list(outputs.shape)} for float targets {list(targets.shape)}; "
            "expected the same shape"
        )
    return targets.reshape(outputs.shape).to(outputs.dtype)

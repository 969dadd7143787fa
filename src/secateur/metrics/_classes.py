"""Scores and labels in one form, whatever dimension counts the classes."""

from __future__ import annotations

from typing import Any

import torch

from secateur.errors import InputError
from secateur.training.losses import IGNORED, binary_logits, class_dimension, is_classes, logits_of


def scores_and_labels(name: str, outputs: Any, targets: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores [n, C] and labels [n], one row per label that counts.

    name: the metric, for messages. outputs: [N, C], [N, C, ...] or [N, ..., C] for integer targets
    [N] or [N, ...]; or one logit for each label of 0 and 1, which gives C = 2. Errors: InputError
    for other targets or shapes.
    """
    if not isinstance(targets, torch.Tensor) or not is_classes(targets):
        kind = targets.dtype if isinstance(targets, torch.Tensor) else type(targets).__name__
        raise InputError(
            f"{name} is for classes, whose targets are integers, and the targets are {kind}; "
            "use loss, mae or mse"
        )
    logits = logits_of(outputs)
    binary = binary_logits(logits, targets)
    if binary is not None:  # two classes, of which the first has the logit 0
        logits = torch.stack([torch.zeros_like(binary), binary], -1)
    scores = logits.movedim(
        -1 if binary is not None else class_dimension(logits, targets), -1
    ).flatten(0, -2)
    labels = targets.flatten().long()
    counted = labels != IGNORED
    return scores[counted], labels[counted]

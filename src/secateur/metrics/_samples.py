"""Values of a metric for single samples, where it is their mean."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from secateur.metrics import get_metric
from secateur.training.losses import IGNORED, found_dimension, is_classes, logits_of


def of_samples(name: str, outputs: Any, targets: Any) -> torch.Tensor | None:
    """float64 [N]: what the metric ``name`` is the mean of; None where it is no mean over samples,
    or where a sample has more than one label."""
    values = getattr(get_metric(name), "of_samples", None)
    return None if values is None else values(outputs, targets)


def right_answers(best: int, outputs: Any, targets: Any) -> torch.Tensor | None:
    """1 for each sample whose label is among its ``best`` highest scores, else 0."""
    scores = _scores(outputs, targets)
    if scores is None:
        return None
    return (scores.topk(best, dim=1).indices == targets[:, None]).any(1).double()


def default_losses(outputs: Any, targets: Any) -> torch.Tensor | None:
    """What ``default_loss`` is the mean of."""
    scores = _scores(outputs, targets)
    if scores is not None:
        return functional.cross_entropy(scores.double(), targets.long(), reduction="none")
    if not isinstance(targets, torch.Tensor) or is_classes(targets):
        return None
    values = logits_of(outputs)
    if values.numel() != targets.numel():
        return None
    squares = (values.double().reshape(targets.shape) - targets.double()).square()
    return squares.flatten(1).mean(1) if squares.dim() > 1 else squares


def _scores(outputs: Any, targets: Any) -> torch.Tensor | None:
    """[N, C] for one label a sample, all of which count."""
    if not isinstance(targets, torch.Tensor) or not is_classes(targets) or targets.dim() != 1:
        return None
    logits = logits_of(outputs)
    if (
        logits.dim() != 2
        or found_dimension(logits, targets) != 1
        or bool((targets == IGNORED).any())
    ):
        return None
    return logits

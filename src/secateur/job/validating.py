"""What a stage says of its model: metric and loss on the validation split."""

from __future__ import annotations

from typing import Any

from torch import nn

from secateur.config import Recipe
from secateur.job.listening import plain
from secateur.metrics import evaluate, get_metric
from secateur.protocols import Subject
from secateur.training.devices import resolve
from secateur.training.loading import batches


def validated(recipe: Recipe, subject: Subject, model: nn.Module) -> dict[str, Any] | None:
    """Metric and loss on the validation split, or None without data."""
    data = subject.data
    if data is None or recipe.data is None:
        return None
    device = resolve(recipe.device)
    model.to(device)
    rows = batches(data.val, recipe.data.batch_size * 2, device=device)
    result = evaluate(model, rows, recipe.metric, data.loss)
    model.to("cpu")
    return plain(result)


def described(recipe: Recipe, metric: dict[str, Any] | None) -> str:
    """``accuracy 97.20 % on validation``."""
    if metric is None:
        return "no data to validate on"
    value = metric[recipe.metric]
    text = f"{100 * value:.2f} %" if get_metric(recipe.metric).is_share else f"{value:.4g}"
    return f"{recipe.metric} {text} on validation"

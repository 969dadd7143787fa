"""How answers are judged: the metric where a recipe leaves it open, and whether it can be taken."""

from __future__ import annotations

from typing import Any

import torch

from secateur.config import Recipe
from secateur.errors import InputError
from secateur.metrics import evaluate
from secateur.protocols import Subject
from secateur.structure.copying import copied
from secateur.training.loading import batches, forward
from secateur.training.losses import binary_logits, found_dimension

LOOKED_AT = 2  # validation samples


def settled(recipe: Recipe, subject: Subject) -> Recipe:
    """The recipe with its metric: where it was left open, ``loss`` for targets that are no classes.

    Loss and metrics are taken of the first validation samples, so that what does not fit ends a
    run before its folder is made; functions of the user's own may need more samples, and wait.
    Errors: InputError, as ``evaluate``, and for a loss that is no number.
    """
    data = subject.data
    if data is None or recipe.data is None:
        return recipe
    model = copied(subject.model).cpu().eval()
    rows = [next(iter(batches(data.val, LOOKED_AT)))]
    if "metric" not in recipe.model_fields_set and not _are_classes(model, rows[0]):
        recipe = recipe.model_copy(update={"metric": "loss"})
    if data.loss is not None:
        _check_loss(data.loss, model, rows[0])
    for name in (recipe.metric, *recipe.floors):
        if ":" not in name:
            evaluate(model, rows, name, data.loss)
    return recipe


def _are_classes(model: torch.nn.Module, row: tuple[Any, Any]) -> bool:
    with torch.no_grad():
        outputs, targets = forward(model, row[0]), row[1]
    known = isinstance(targets, torch.Tensor)
    return known and (
        found_dimension(outputs, targets) is not None or binary_logits(outputs, targets) is not None
    )


def _check_loss(loss: Any, model: torch.nn.Module, row: tuple[Any, Any]) -> None:
    """Errors: InputError for what cannot be trained on."""
    found = loss(forward(model, row[0]), row[1])
    if not isinstance(found, torch.Tensor) or found.numel() != 1:
        what = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise InputError(f"the loss returned {what}; expected one number, the mean of a batch")
    if not found.requires_grad and any(p.requires_grad for p in model.parameters()):
        raise InputError(
            "the loss cannot be derived by the weights; use operations of torch on the outputs"
        )

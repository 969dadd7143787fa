"""``torchvision:NAME``: the models of torchvision, untrained unless ``weights`` are asked for."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from secateur.errors import InputError
from secateur.sources.importing import require
from secateur.sources.models import model_source

_FRAMES = 16  # of a video clip; the kinetics models were trained with 16 to 32
_SIZE = 224  # of images where torchvision records no crop


@model_source("torchvision")
def torchvision_model(name: str, arguments: Mapping[str, Any]) -> tuple[nn.Module, Any]:
    """Models of torchvision: ``torchvision:resnet18``; ``weights: DEFAULT`` downloads theirs.

    Example inputs are images [1, 3, h, w] or clips [1, 3, frames, h, w]; detection and optical
    flow take lists and get none. Errors: InputError.
    """
    models = require(
        "torchvision.models",
        f"'torchvision:{name}'",
        f"install the torchvision that belongs to torch {torch.__version__}, both from the same "
        "index (pip install --force-reinstall torch torchvision)",
    )
    known = models.list_models()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise InputError(
            f"torchvision has no model {name!r}: {hint}see torchvision.models.list_models()"
        )
    try:
        model = models.get_model(name, **arguments)
    except Exception as error:
        raise InputError(
            f"torchvision:{name} cannot be built: {type(error).__name__}: {error}"
        ) from error
    return model, _example(models, name, model)


def _example(models: Any, name: str, model: nn.Module) -> torch.Tensor | None:
    for module in (models.detection, models.optical_flow):
        if name in models.list_models(module=module):
            return None
    weights = next(iter(models.get_model_weights(name)), None)
    crop = getattr(weights.transforms(), "crop_size", None) if weights is not None else None
    height, width = (crop[0], crop[-1]) if crop else (_SIZE, _SIZE)
    fixed = getattr(model, "image_size", None)  # transformers take one size and no other
    if isinstance(fixed, int):
        height = width = fixed
    if name in models.list_models(module=models.video):
        return torch.zeros(1, 3, _FRAMES, height, width)
    return torch.zeros(1, 3, height, width)

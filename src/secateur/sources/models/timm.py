"""``timm:NAME``: the models of timm, untrained unless ``pretrained`` is asked for."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from secateur.errors import InputError
from secateur.sources.importing import require
from secateur.sources.models import model_source


@model_source("timm")
def timm_model(name: str, arguments: Mapping[str, Any]) -> tuple[nn.Module, Any]:
    """Models of timm: ``timm:resnet18``; ``pretrained: true`` downloads their weights.

    Example inputs are images [1, channels, h, w] of the model's own size, or of the arguments
    ``in_chans`` and ``img_size``. Errors: InputError.
    """
    timm = require(
        "timm",
        f"'timm:{name}'",
        f"pip install timm, with the torchvision that belongs to torch {torch.__version__}",
    )
    # A name with a colon is a repository of the Hugging Face hub, which timm looks up itself.
    if ":" not in name and not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise InputError(f"timm has no model {name!r}: {hint}see timm.list_models()")
    try:
        model = timm.create_model(name, **arguments)
    except Exception as error:
        raise InputError(f"timm:{name} cannot be built: {type(error).__name__}: {error}") from error
    channels, height, width = model.pretrained_cfg["input_size"]
    size = arguments.get("img_size", (height, width))
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return model, torch.zeros(1, arguments.get("in_chans", channels), height, width)

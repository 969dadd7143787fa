"""What callbacks share: a pruner in a training that has begun, or goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from secateur.errors import InputError
from secateur.pruner import Pruner


def begun(
    model: nn.Module,
    recipe: Mapping[str, Any],
    example_inputs: Any,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any] | None,
    hook_optimizer: bool,
) -> Pruner:
    """A pruner; with ``state`` one that goes on, on weights that were loaded already.

    Errors: InputError for several cuts, which would take the model away from the loop.
    """
    if int(recipe.get("steps", 1)) > 1:
        raise InputError(
            "a callback cannot exchange the model while its loop trains it; take one cut, which is "
            "made at the end, or a loop of your own with secateur.Pruner"
        )
    loaded = {n: t.detach().clone() for n, t in model.state_dict().items()}
    pruner = Pruner(model, recipe, example_inputs, optimizer, hook_optimizer=hook_optimizer)
    if state is not None:
        pruner.load_state_dict(state)
        with torch.no_grad():  # some methods zero weights when they begin
            for name, tensor in model.state_dict().items():
                tensor.copy_(loaded[name])
    return pruner

"""Weights that stay zero while the others are trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from secateur.errors import InputError

Held = tuple[tuple[nn.Parameter, torch.Tensor], ...]


def zero_masks(model: nn.Module, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """bool by name, True where an element of the parameter is not zero. Errors: InputError."""
    parameters = _parameters(model)
    return {name: _known(parameters, name).detach() != 0 for name in names}


def placed(model: nn.Module, masks: Mapping[str, torch.Tensor], device: torch.device) -> Held:
    """Parameters with their masks on a device; elements outside the masks are zero from here on.

    Errors: InputError for a mask of no parameter, or of another shape.
    """
    parameters = _parameters(model)
    found = []
    for name, mask in masks.items():
        parameter = _known(parameters, name)
        if mask.shape != parameter.shape:
            raise InputError(
                f"the mask of {name!r} has shape {list(mask.shape)} and the parameter "
                f"{list(parameter.shape)}"
            )
        found.append((parameter, mask.to(device=device, dtype=torch.bool)))
    held = tuple(found)
    hold(held)
    return held


def hold(masks: Held) -> None:
    """Zero what is outside the masks."""
    with torch.no_grad():
        for parameter, mask in masks:
            parameter.masked_fill_(~mask, 0.0)


def _parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return dict(model.named_parameters(remove_duplicate=False))


def _known(parameters: Mapping[str, nn.Parameter], name: str) -> nn.Parameter:
    if name not in parameters:
        raise InputError(f"there is no parameter {name!r} to mask")
    return parameters[name]

"""Masks on a model, and in a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from secateur.errors import InputError
from secateur.structure.structure import Removal, Structure
from secateur.surgery.storing import read_tensors, write_tensors


def apply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Zero what the masks do not keep, in place, on the model's device.

    masks: parameter -> bool of its shape, True where an element stays.
    Errors: InputError for a mask of no parameter, and of another shape; nothing is changed then.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, mask in masks.items():
        if name not in parameters:
            raise InputError(f"there is no parameter {name!r} to mask; the masks are of another "
                             "model")  # fmt: skip
        if mask.shape != parameters[name].shape:
            raise InputError(
                f"the mask of {name!r} has shape {list(mask.shape)} and the parameter "
                f"{list(parameters[name].shape)}; the masks are of another model"
            )
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].masked_fill_(~mask.to(parameters[name].device).bool(), 0.0)


def sliced_masks(
    masks: Mapping[str, Tensor], structure: Structure, remove: Removal
) -> dict[str, Tensor]:
    """Masks of a dense model for what a removal leaves of it."""
    kept = structure.kept(remove)
    found = {}
    for name, mask in masks.items():
        for dim in range(mask.dim()):
            index = kept.get((structure.aliases.get(name, name), dim))
            if index is not None:
                mask = mask.index_select(dim, torch.from_numpy(index))
        found[name] = mask
    return found


def save_masks(masks: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Write masks as a safetensors file of bools."""
    write_tensors(Path(path), {name: mask.bool().cpu() for name, mask in masks.items()})


def load_masks(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read what ``save_masks`` wrote. Errors: InputError for a file that holds something else."""
    found = read_tensors(Path(path))
    for name, mask in found.items():
        if mask.dtype != torch.bool:
            raise InputError(
                f"{path} holds {name!r} as {mask.dtype}; masks are bool, one for each element"
            )
    return found

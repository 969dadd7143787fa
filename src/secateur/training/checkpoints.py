"""A checkpoint is one safetensors file: tensors, and a JSON document in its header.

One file is replaced in one step, so that tensors and document are always of the same moment.
Nothing in it is pickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file

from secateur.errors import InputError

SCHEMA = "secateur.checkpoint/1"


def write_checkpoint(
    path: Path, tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]
) -> None:
    """Write a checkpoint; the one before stays until the new one is whole and on the disk.

    Errors: InputError where it cannot be written; nothing is left behind then.
    """
    partial = path.with_name(f".{path.name}.partial")
    own: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        # safetensors refuses two tensors in one place
        place = tensor.untyped_storage().data_ptr()
        own[name] = tensor.clone() if place in places else tensor
        places.add(place)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(own, partial, {"schema": SCHEMA, "document": json.dumps(document)})
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, safetensors.SafetensorError) as error:
        if partial.exists():
            partial.unlink()
        raise InputError(
            f"cannot write the checkpoint {path} ({error}); free some space or choose another place"
        ) from error


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and document of a checkpoint.

    Errors: InputError for a missing, broken or truncated file, and for anything else in its place.
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise InputError(
            f"{path} is not a whole checkpoint ({error}); delete it to start again"
        ) from error
    if header.get("schema") != SCHEMA:
        raise InputError(
            f"{path} is not a checkpoint of this version ({SCHEMA}); delete it to start again"
        )
    return tensors, json.loads(header["document"])

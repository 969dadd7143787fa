"""How large a model is: parameters, and bytes of the file that holds it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from torch import nn

from secateur.errors import InputError
from secateur.surgery.tensors import named_tensors

# How safetensors spells a type, in the order in which it writes tensors: widest type first.
_TYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def count_params(model: nn.Module) -> int:
    """Number of parameter elements; tied parameters count once, also when tied by storage."""
    sizes: dict[tuple[int, int], int] = {}
    for parameter in model.parameters():
        place = (parameter.untyped_storage()._cdata, int(parameter.storage_offset()))
        sizes[place] = max(sizes.get(place, 0), parameter.numel())
    return sum(sizes.values())


def count_nonzero(model: nn.Module) -> int:
    """Number of parameter elements that are not zero; tied parameters count once."""
    kept: dict[tuple[int, int], nn.Parameter] = {}
    for parameter in model.parameters():
        place = (parameter.untyped_storage()._cdata, int(parameter.storage_offset()))
        if place not in kept or kept[place].numel() < parameter.numel():
            kept[place] = parameter
    return sum(int(torch.count_nonzero(p)) for p in kept.values())


def count_bytes(model: nn.Module) -> int:
    """Bytes of the safetensors file that ``secateur.save`` writes; nothing is written.

    Parameters and buffers, tied ones once, with the header. Errors: InputError for a type that
    safetensors cannot hold.
    """
    unique: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in named_tensors(model).items():
        unique.setdefault(id(tensor), (name, tensor))
    order = list(_TYPES)
    for name, tensor in unique.values():
        if tensor.dtype not in _TYPES:
            raise InputError(f"'{name}' is {tensor.dtype}, which a safetensors file cannot hold")
    header: dict[str, object] = {}
    end = 0
    for name, tensor in sorted(unique.values(), key=lambda p: (order.index(p[1].dtype), p[0])):
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    padded = -(-len(text) // 8) * 8
    return 8 + padded + end


def bytes_on_disk(path: str | os.PathLike[str]) -> int:
    """Bytes of a file, or of all files of a folder. Errors: InputError when there is none."""
    path = Path(path)
    if path.is_file():
        return path.stat().st_size
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    raise InputError(f"there is no file or folder {path}")

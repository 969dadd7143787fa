"""Weights with many zeros, stored in little more than what is not zero.

A tensor is a mask of one bit for each element and the values that are not zero, both compressed
by Zstandard; the bytes of the values are first put side by side by their place (all signs and
exponents, then the rest), which is where floats repeat themselves. A mask costs the entropy of
its zeros and little more. A negative zero comes back as zero. Nothing is unpickled, and a file is
read one tensor at a time. The header and every frame carry a checksum, and a file ends with its
last frame.

    "SECATEU2" | u64 length of the header | u32 its CRC-32 | header, JSON | frames
    header: name -> {dtype, shape, mask: [start, end] or null, values: [start, end]}

Files of before, which began with "SECATEUR" and had no checksums, are read as well.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from secateur.errors import InputError

MAGIC, UNCHECKED = b"SECATEU2", b"SECATEUR"  # the second of files without checksums
LEVEL = 19
SPARSE = 0.05  # share of zeros from which a mask is worth its bytes
LARGEST = 2**40  # bytes of a tensor that a header may ask for


def write_sparse(path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor]) -> Path:
    """Write tensors; returns the path. Errors: InputError without the package zstandard."""
    compress = zstandard_package().ZstdCompressor(level=LEVEL, write_checksum=True).compress
    header: dict[str, Any] = {}
    frames: list[bytes] = []
    end = 0

    def frame(data: bytes) -> list[int]:
        nonlocal end
        frames.append(compress(data))
        start, end = end, end + len(frames[-1])
        return [start, end]

    for name, tensor in tensors.items():
        values = _bits(tensor)
        flat = values.reshape(-1)
        kept = flat != 0
        mask = None
        if flat.size and 1 - kept.mean() >= SPARSE:
            mask = frame(np.packbits(kept).tobytes())
            flat = flat[kept]
        planes = flat.view(np.uint8).reshape(-1, flat.dtype.itemsize).T
        header[name] = {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "mask": mask,
            "values": frame(np.ascontiguousarray(planes).tobytes()),
        }
    text = json.dumps(header).encode()
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(MAGIC + len(text).to_bytes(8, "little"))
            file.write(zlib.crc32(text).to_bytes(4, "little") + text)
            for data in frames:
                file.write(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def read_sparse(path: str | os.PathLike[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) one after the other, as they were written.

    Errors: InputError for a missing, foreign, truncated or changed file, when what is broken is
    read; a length that is wrong is seen at once.
    """
    path = Path(path)
    decompressor = zstandard_package().ZstdDecompressor()
    broken = InputError(f"{path} is no whole file of sparse weights; write it again")
    try:
        with path.open("rb") as file:
            magic = file.read(8)
            if magic not in (MAGIC, UNCHECKED):
                raise broken
            length = int.from_bytes(file.read(8), "little")
            checksum = file.read(4) if magic == MAGIC else None
            if length > path.stat().st_size:
                raise broken
            text = file.read(length)
            if checksum is not None and checksum != zlib.crc32(text).to_bytes(4, "little"):
                raise broken
            header = json.loads(text)
            start = file.tell()
            places = [place for e in header.values() for place in (e["mask"], e["values"])]
            end = max((place[1] for place in places if place), default=0)
            if path.stat().st_size != start + end:
                raise broken

            def frame(place: list[int], size: int) -> np.ndarray:
                file.seek(start + place[0])
                data = decompressor.decompress(file.read(place[1] - place[0]), max_output_size=size)
                if len(data) != size:
                    raise broken
                return np.frombuffer(data, np.uint8)

            for name, entry in header.items():
                yield name, _read(entry, frame, broken)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise broken from error
    except zstandard_package().ZstdError as error:
        raise broken from error


def _read(entry: Mapping[str, Any], frame: Any, broken: InputError) -> torch.Tensor:
    dtype = getattr(torch, str(entry["dtype"]), None)
    if not isinstance(dtype, torch.dtype):
        raise broken
    size = torch.empty((), dtype=dtype).element_size()
    shape = [int(n) for n in entry["shape"]]
    count = math.prod(shape)
    if min(shape, default=0) < 0 or count * size > LARGEST:
        raise broken
    kept = None
    given = count
    if entry["mask"] is not None:
        kept = np.unpackbits(frame(entry["mask"], -(-count // 8)), count=count).astype(bool)
        given = int(kept.sum())
    planes = frame(entry["values"], given * size).reshape(size, given)
    values = np.ascontiguousarray(planes.T).view(f"u{size}").reshape(-1)
    if kept is not None:
        whole = np.zeros(count, values.dtype)
        whole[kept] = values
        values = whole
    raw = torch.from_numpy(values.copy().view(np.uint8)) if count else torch.empty(0, dtype=dtype)
    return (raw.view(dtype) if count else raw).reshape(shape)


def _bits(tensor: torch.Tensor) -> np.ndarray:
    """The elements as unsigned numbers of the same width; what a mask multiplied by zero is zero,
    also where that left a negative one."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.is_floating_point() or flat.is_complex():
        flat = torch.where(flat == 0, torch.zeros((), dtype=flat.dtype), flat)
    raw = flat.view(torch.uint8).numpy() if flat.numel() else np.zeros(0, np.uint8)
    return raw.view(f"u{tensor.element_size()}")


def zstandard_package() -> ModuleType:
    """The package that compresses. Errors: InputError where it is not installed."""
    try:
        import zstandard
    except ImportError as error:
        raise InputError(
            f"sparse weights need zstandard ({error}); pip install secateur[sparse]"
        ) from error
    return zstandard

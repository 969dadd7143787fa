"""IDX files, the form of MNIST and its kin; gzipped or not."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch

from secateur.errors import InputError

IMAGES, LABELS = 2051, 2049  # magic numbers: unsigned bytes in 3 dimensions, in 1
_KINDS = {IMAGES: "images", LABELS: "labels"}


def read_idx(path: Path, magic: int) -> torch.Tensor:
    """The bytes of a file as uint8 [N, h, w] or [N]. magic: IMAGES or LABELS.

    Errors: InputError for a file of another kind, and for one that is cut off.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}; get the file anew") from error
    seen = int.from_bytes(content[:4], "big")
    if seen != magic or len(content) < 4:
        raise InputError(
            f"{path} starts with the magic number {seen}; IDX files of {_KINDS[magic]} start with "
            f"{magic}: get the file anew"
        )
    dimensions = content[3]
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(content[4 + 4 * d : 8 + 4 * d], "big") for d in range(dimensions)]
    size = int(np.prod(shape))
    if len(content) != start + size:
        raise InputError(
            f"{path} holds {max(len(content) - start, 0)} bytes for a shape of {shape}, which "
            f"takes {size}: get the file anew"
        )
    values = np.frombuffer(content, np.uint8, offset=start).reshape(shape)
    return torch.from_numpy(values.copy())

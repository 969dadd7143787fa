"""Tensors as numpy's arrays."""

from __future__ import annotations

import numpy as np
import torch

_FLOATS = (torch.float16, torch.float32, torch.float64)


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as an array on the CPU; floats that numpy lacks, such as bfloat16, as float32."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    if tensor.is_floating_point() and tensor.dtype not in _FLOATS:
        tensor = tensor.float()
    return tensor.numpy()

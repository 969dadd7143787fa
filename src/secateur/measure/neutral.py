"""Copies to measure on, and switches to measure under; all as before afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from secateur.structure.copying import copied
from secateur.surgery.tensors import named_tensors


def evaluating(model: nn.Module) -> nn.Module:
    """A copy in eval mode, on the model's own device."""
    return copied(model).eval()


def without_data(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose parameters and buffers are on the meta device; ties are kept.

    Tensors that are neither parameters nor buffers stay where they are.
    """
    memo: dict[int, Any] = {}
    for tensor in named_tensors(model).values():
        empty = torch.empty_like(tensor.detach(), device="meta")
        if isinstance(tensor, nn.Parameter):
            empty = nn.Parameter(empty, tensor.requires_grad)
        memo[id(tensor)] = empty
    return copied(model, memo).eval()


@contextmanager
def unfused(recurrent: bool = True) -> Iterator[None]:
    """Run without fused operations that hide what happens inside them; restored afterwards.

    The fast path of nn.MultiheadAttention and nn.TransformerEncoderLayer, and with
    ``recurrent`` MKL-DNN's recurrent layers too (convolutions then run slower).
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    mkldnn = torch.backends.mkldnn.enabled
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.mkldnn.enabled = mkldnn and not recurrent
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        torch.backends.mkldnn.enabled = mkldnn

"""FLOPs of a forward pass, counted the same way on both sides."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def flops(model: nn.Module, inputs: Tensor) -> int:
    """FLOPs by torch's own counter (one multiply-add is 2), attention included.

    The counter does not see into the fused kernels of attention on a CPU, so that attention runs
    as matrix products here.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        counter = FlopCounterMode(display=False)
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), counter:
            model(inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops()


def parameters(model: nn.Module) -> int:
    """Number of entries of all parameters."""
    return sum(parameter.numel() for parameter in model.parameters())

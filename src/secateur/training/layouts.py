"""Whether a training may keep images in channels-last layout.

oneDNN, which PyTorch computes convolutions with on a CPU, writes past its buffer in the gradient
of the weights of a strided 1x1 convolution with few input channels and a channels-last input
(its issue 6035; seen with torch 2.13): the process crashes, or the gradient is wrong. Pruning
makes just such convolutions, in the shortcuts of narrow residual nets.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from secateur.structure.copying import copied
from secateur.training.loading import forward
from secateur.training.settings import FinetuneSettings

# Below a vector of oneDNN's kernels, which is 8 floats with AVX2 and 16 with AVX-512.
FEWEST_CHANNELS = 16


def with_safe_layout(
    settings: FinetuneSettings, model: nn.Module, inputs: Any, device: torch.device
) -> FinetuneSettings:
    """The settings, without ``channels_last`` where training with it would corrupt memory.

    inputs: of one small batch, where the model is; they are only looked at.
    """
    if not settings.channels_last or device.type != "cpu" or not _has_narrow_kernels(model):
        return settings
    copy = copied(model).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    watch = _StridedPointwise()
    with torch.no_grad(), watch:
        forward(copy, channels_last(inputs))
    return replace(settings, channels_last=False) if watch.found else settings


def channels_last(inputs: Any) -> Any:
    """Images in that layout; anything else as it is."""
    if isinstance(inputs, torch.Tensor) and inputs.dim() == 4:
        return inputs.contiguous(memory_format=torch.channels_last)
    return inputs


def _has_narrow_kernels(model: nn.Module) -> bool:
    return any(
        p.dim() == 4 and p.shape[2:] == (1, 1) and p.shape[1] < FEWEST_CHANNELS
        for p in model.parameters()
    )


class _StridedPointwise(TorchDispatchMode):
    """Notes whether a strided 1x1 convolution of few channels met a channels-last input."""

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.convolution.default:
            images, weight, stride = args[0], args[1], args[3]
            self.found |= (
                weight.dim() == 4
                and weight.shape[2:] == (1, 1)
                and weight.shape[1] < FEWEST_CHANNELS
                and max(stride) > 1
                and images.stride(1) == 1
            )
        return func(*args, **(kwargs or {}))

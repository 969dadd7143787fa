"""A single layer of a latency table as a PyTorch module, as ``_layers.py`` has it as ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from secateur.measure.layer import Layer


def as_module(layer: Layer) -> nn.Module:
    """A PyTorch module that does what the layer does, with small random weights."""
    sizes, settings = layer.sizes, layer.settings
    if layer.kind == "convolution":
        return _convolution(sizes, settings)
    if layer.kind == "linear":
        return nn.Linear(sizes[1], sizes[2])
    if layer.kind == "product":
        return _Product()
    if layer.kind == "attention":
        return _Attention()
    kind = settings[2]
    cell = {"lstm": nn.LSTM, "gru": nn.GRU}.get(kind, nn.RNN)
    return cell(sizes[0], sizes[1], num_layers=settings[3], bidirectional=settings[4])


def _convolution(sizes: tuple[int, ...], settings: tuple[Any, ...]) -> nn.Module:
    _, transposed, space, kernel, stride, padding, dilation, extra = settings
    groups, inputs, outputs = sizes
    if transposed:
        cls = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[len(space) - 1]
        layer = cls(groups * inputs, groups * outputs, kernel, stride, padding, extra, groups,
                    dilation=dilation)  # fmt: skip
    else:
        cls = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(space) - 1]
        layer = cls(groups * inputs, groups * outputs, kernel, stride, padding, dilation, groups)
    return nn.Sequential(layer, nn.ReLU())


class _Product(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left @ right


class _Attention(nn.Module):
    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(query[None], key[None], value[None])[0]

"""Whether slices that any tool cut from a model were cut exactly: removed must equal zeroed.

Used on Torch-Pruning's results, which are no plans of ours. The reference is the dense model with
the same slices zero, in float64; layer norms of the reference run over the surviving channels, as
they do in a smaller model.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Difference:
    """Largest differences of the outputs, relative.

    error:  |pruned - zeroed| / |zeroed|. of_effect: |pruned - zeroed| / |zeroed - dense|.
    """

    error: float
    of_effect: float


Survivors = Mapping[str, Tensor]


def numbered(model: nn.Module) -> nn.Module:
    """A copy whose every tensor holds the numbers of its own entries, float64."""
    result = copy.deepcopy(model).double()
    with torch.no_grad():
        for tensor in floats(result).values():
            tensor.copy_(torch.arange(tensor.numel(), dtype=torch.float64).view_as(tensor))
    return result


def compare(model: nn.Module, pruned: nn.Module, left: Survivors, inputs: Tensor) -> Difference:
    """``left``: by name, the numbers of the entries of ``model`` that ``pruned`` kept."""
    dense = copy.deepcopy(model).double().eval()
    zeroed = copy.deepcopy(dense)
    with torch.no_grad():
        for name, tensor in floats(zeroed).items():
            keep = torch.zeros(tensor.numel(), dtype=torch.bool)
            keep[left[name].detach().reshape(-1).long()] = True
            tensor.mul_(keep.view_as(tensor))
            if bool(keep.all()) or not name.endswith(".weight"):
                continue
            parent, _, leaf = name.removesuffix(".weight").rpartition(".")
            owner = zeroed.get_submodule(parent)
            norm = getattr(owner, leaf)
            if isinstance(norm, nn.LayerNorm):
                setattr(owner, leaf, _NormOfSurvivors(norm, keep))
        inputs = inputs.double()
        before, right = dense(inputs), zeroed(inputs)
        seen = copy.deepcopy(pruned).double().eval()(inputs)
    error = float((seen - right).abs().max())
    effect = float((right - before).abs().max())
    return Difference(error / float(right.abs().max()), error / effect if effect else math.nan)


class _NormOfSurvivors(nn.Module):
    """A layer norm whose statistics run over the surviving channels alone."""

    def __init__(self, norm: nn.LayerNorm, keep: Tensor) -> None:
        super().__init__()
        self.norm = norm
        self.index = keep.nonzero().squeeze(1)

    def forward(self, x: Tensor) -> Tensor:
        index = self.index
        weight, bias = self.norm.weight[index], self.norm.bias[index]
        y = F.layer_norm(x[..., index], (len(index),), weight, bias, self.norm.eps)
        return torch.zeros_like(x).index_copy(-1, index, y)


def floats(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of floating point, by name."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor for name, tensor in named if tensor.is_floating_point()}

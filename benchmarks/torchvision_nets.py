"""The three torchvision nets of the speed benchmark, and what Torch-Pruning is told of each."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.torch_pruning_side import Told
from benchmarks.with_torchvision import torchvision

NETS = ("resnet50", "densenet121", "vit_b_16")


def build(name: str) -> nn.Module:
    """The net with random weights of seed 0, in eval mode."""
    torch.manual_seed(0)
    model = getattr(torchvision().models, name)(weights=None).eval()
    _wake(model)
    return model


def told(name: str) -> Told:
    """As in Torch-Pruning's own script for torchvision models."""
    if name == "vit_b_16":
        return Told(
            "output layer, attention projections, widths in multiples of the 12 heads, "
            "hidden_dim after pruning",
            _vit_outputs,
            round_to=12,
            mend=_vit_mend,
        )
    if name == "densenet121":
        return Told("output layer", lambda model: [model.classifier])  # type: ignore[list-item]
    return Told("output layer", lambda model: [model.fc])  # type: ignore[list-item]


def also_told(name: str) -> dict[str, Told]:
    """Other ways to tell it, of which only the result is looked at."""
    if name != "vit_b_16":
        return {}
    words = "output layer, attention projections, heads"
    return {"heads told": Told(words, _vit_outputs, _vit_heads, mend=_vit_mend)}


def _vit_outputs(model: nn.Module) -> list[nn.Module]:
    # The projection of nn.MultiheadAttention is pruned by the attention itself.
    linear = nn.modules.linear.NonDynamicallyQuantizableLinear
    return [model.heads.head, *(m for m in model.modules() if isinstance(m, linear))]  # type: ignore[union-attr,list-item]


def _vit_heads(model: nn.Module) -> dict[nn.Module, int]:
    return {m: m.num_heads for m in model.modules() if isinstance(m, nn.MultiheadAttention)}


def _vit_mend(model: nn.Module) -> None:
    model.hidden_dim = model.conv_proj.out_channels  # type: ignore[union-attr,assignment]


def _wake(model: nn.Module) -> None:
    """Give what starts at zero or one (head, biases, norms) values, so that no error hides."""
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.dim() == 1 and tensor.is_floating_point():
                scale = 0.1 * torch.randn(tensor.shape)
                tensor.add_(scale.abs() if name.endswith("running_var") else scale)
            elif not bool(tensor.any()) and tensor.is_floating_point():
                tensor.add_(0.02 * torch.randn(tensor.shape))

"""The slow oracle: zero every slice that leaves and compare, without knowing any graph.

``randomise`` makes a net in which nothing is zero by chance, ``zeroed`` is the original with the
removed slices set to zero (and, where a norm runs across them, its statistic over the survivors),
``compare`` measures how far a pruned net is from it, in units of what pruning changed at all.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

Slices = Mapping[tuple[str, int], np.ndarray]


def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Redraw all parameters and norm statistics in place, in float64; activations stay O(1).

    Matrices are N(0, 1.5 / fan-in), biases N(0, 0.3), every other vector (norm weights, layer
    scales, slopes) uniform in 0.5 .. 1.5; running means N(0, 0.3), variances 0.5 .. 1.5. Buffers
    that are no statistics (positions, frequencies) keep their values.
    """
    generator = torch.Generator().manual_seed(seed)
    model._apply(wide)

    def normal(tensor: Tensor, deviation: float) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * deviation)

    def uniform(tensor: Tensor) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)

    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if not tensor.numel():
                continue
            if name.endswith(("bias", "bias_ih_l0", "bias_hh_l0")):
                normal(tensor, 0.3)
            elif tensor.squeeze().dim() < 2:
                uniform(tensor)
            else:
                normal(tensor, (1.5 * tensor.shape[0] / tensor.numel()) ** 0.5)
        for name, tensor in model.named_buffers():
            if name.endswith("running_mean"):
                normal(tensor, 0.3)
            elif name.endswith("running_var"):
                uniform(tensor)
    return model


def wide(tensor: Tensor) -> Tensor:
    """In float64 or complex128; whole numbers stay."""
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.double() if tensor.is_floating_point() else tensor


def find(model: nn.Module, name: str) -> Tensor:
    """The parameter or buffer called ``name``."""
    owner, _, leaf = name.rpartition(".")
    return getattr(model.get_submodule(owner), leaf)


def removed_slices(structure: Any, plan: Mapping[str, Any]) -> dict[tuple[str, int], np.ndarray]:
    """Indices of every tensor dimension that leave, from the members of the groups alone."""
    lists: dict[tuple[str, int], list[np.ndarray]] = {}
    for name, units in plan.items():
        for member in structure.group(name).members:
            indices = lists.setdefault((member.tensor, member.dim), [])
            indices.append(member.index[list(units)].ravel())
    return {key: np.unique(np.concatenate(value)) for key, value in lists.items()}


class SurvivorNorm(nn.Module):
    """Layer norm or RMS norm whose statistic runs over ``alive`` [*normalized_shape] only."""

    def __init__(self, dense: nn.LayerNorm | nn.RMSNorm, alive: Tensor) -> None:
        super().__init__()
        self.centred, self.eps = isinstance(dense, nn.LayerNorm), dense.eps
        self.weight, self.bias = dense.weight, getattr(dense, "bias", None)
        self.register_buffer("alive", alive)

    def forward(self, x: Tensor) -> Tensor:
        alive = self.get_buffer("alive").to(x.dtype)
        dims = tuple(range(-alive.dim(), 0))
        epsilon = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        if self.centred:
            x = x - (x * alive).sum(dims, keepdim=True) / alive.sum()
        square = (x.square() * alive).sum(dims, keepdim=True) / alive.sum()
        y = x * torch.rsqrt(square + epsilon) * self.weight
        return y if self.bias is None else y + self.bias


class SurvivorGroupNorm(nn.Module):
    """Group norm whose statistics run over the channels in ``alive`` [channels] only."""

    def __init__(self, dense: nn.GroupNorm, alive: Tensor) -> None:
        super().__init__()
        self.dense = dense
        self.register_buffer("alive", alive)

    def forward(self, x: Tensor) -> Tensor:
        y = x.reshape(x.shape[0], self.dense.num_groups, -1, *x.shape[2:])
        shape = (1, self.dense.num_groups, -1) + (1,) * (x.dim() - 2)
        alive = self.get_buffer("alive").to(x.dtype).view(shape).expand_as(y)
        dims = tuple(range(2, y.dim()))
        count = alive.sum(dims, keepdim=True).clamp(min=1)  # a group that left whole stays zero
        y = y - (y * alive).sum(dims, keepdim=True) / count
        square = (y.square() * alive).sum(dims, keepdim=True) / count
        y = (y * torch.rsqrt(square + self.dense.eps)).reshape(x.shape)
        affine = (1, -1) + (1,) * (x.dim() - 2)
        return y * self.dense.weight.view(affine) + self.dense.bias.view(affine)


def zeroed(model: nn.Module, removed: Slices) -> nn.Module:
    """A float64 copy with the removed indices of every tensor dimension set to zero.

    removed: (tensor name, dimension) -> indices that leave. Affine ``nn`` layer, RMS and group
    norms whose own weight loses indices take their statistics over the others. Sizes, and with
    them the scale of every attention, are those of the original.
    """
    mode = model.training
    model.train()  # some nets store tables in eval mode, and drop them now
    result = copy.deepcopy(model)._apply(wide).train(mode)
    model.train(mode)
    with torch.no_grad():
        for (name, dim), indices in removed.items():
            find(result, name).index_fill_(dim, torch.as_tensor(indices, dtype=torch.long), 0)
    for name, module in list(result.named_modules()):
        if isinstance(module, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm):
            if module.weight is None:  # what it runs over has no name here; the caller must know
                continue
            alive = torch.ones_like(module.weight, dtype=torch.bool)
            for dim in range(alive.dim()):
                gone = removed.get((f"{name}.weight", dim), np.empty(0, int))
                alive.index_fill_(dim, torch.as_tensor(gone, dtype=torch.long), False)
            if alive.all():
                continue
            grouped = isinstance(module, nn.GroupNorm)
            result.set_submodule(
                name, SurvivorGroupNorm(module, alive) if grouped else SurvivorNorm(module, alive)
            )
    return result


def split(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of example inputs in any of their forms."""
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, dict):
        return (), inputs
    if len(inputs) == 2 and isinstance(inputs[0], tuple) and isinstance(inputs[1], dict):
        return inputs
    return inputs, {}


def call(model: nn.Module, inputs: Any) -> Any:
    """The model's output. Gradients stay on: without them torch may take fused fast paths."""
    arguments, keywords = split(inputs)
    return model(*arguments, **keywords)


def leaves(output: Any) -> list[Tensor]:
    """All tensors of an output, in order."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


@dataclass(frozen=True)
class Comparison:
    """How much pruning changed, and how far the pruned net is from it.

    effect: max |zeroed - dense| / max |dense|
    error:  max |pruned - zeroed| / max |zeroed - dense|
    """

    effect: float
    error: float


def largest(left: list[Tensor], right: list[Tensor]) -> float:
    """The largest absolute difference over all outputs."""
    assert [x.shape for x in left] == [x.shape for x in right]
    return max(float((x - y).abs().max()) for x, y in zip(left, right, strict=True))


def compare(dense: nn.Module, pruned: nn.Module, reference: nn.Module, inputs: Any) -> Comparison:
    """Run all three in eval mode on the same inputs and compare every output."""
    dense_out, pruned_out, reference_out = (
        [leaf.detach() for leaf in leaves(call(model.eval(), inputs))]
        for model in (dense, pruned, reference)
    )
    change = largest(reference_out, dense_out)
    size = max(float(x.abs().max()) for x in dense_out)
    # a plan that changes nothing has no unit to measure the error in: use the output itself
    error = largest(pruned_out, reference_out)
    return Comparison(effect=change / size, error=error / (change or size))

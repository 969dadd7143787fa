"""Slices of parameters and buffers, ties kept."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from secateur.structure.structure import Removal, Structure


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """All parameters and buffers, tied names included."""
    return dict(
        [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]
    )


def unique_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """All parameters and buffers, detached, each under its first name."""
    first: dict[int, str] = {}
    return {
        name: tensor.detach()
        for name, tensor in named_tensors(model).items()
        if first.setdefault(id(tensor), name) == name
    }


def transient_buffers(model: nn.Module) -> frozenset[str]:
    """Names of the buffers that are not part of the state dict."""
    return frozenset(
        f"{path}.{leaf}" if path else leaf
        for path, module in model.named_modules(remove_duplicate=False)
        for leaf in module._non_persistent_buffers_set
    )


def owner_of(tensor: str) -> str:
    """Path of the module that uses a tensor by its name, parametrized or not."""
    module, parametrized, _ = tensor.partition(".parametrizations.")
    return module if parametrized else tensor.rpartition(".")[0]


def refresh_weights(model: nn.Module) -> None:
    """Compute anew what the hooks of weight norm and its kind keep as a plain attribute."""
    with torch.no_grad():
        for module in model.modules():
            for hook in module._forward_pre_hooks.values():
                if isinstance(hook, (WeightNorm, SpectralNorm, BasePruningMethod)):
                    hook(module, ())


def sliced(
    model: nn.Module, structure: Structure, remove: Removal
) -> dict[str, torch.Tensor | nn.Parameter]:
    """New tensors by name after the removal; tied names hold the same new tensor."""
    kept, drop = structure.kept(remove), structure.dropped(remove)
    made: dict[str, torch.Tensor | nn.Parameter] = {}
    result: dict[str, torch.Tensor | nn.Parameter] = {}
    for name, tensor in named_tensors(model).items():
        canonical = structure.aliases.get(name, name)
        if canonical in drop.tensors:
            continue
        if canonical not in made:
            made[canonical] = _slice(tensor, canonical, structure, kept)
        result[name] = made[canonical]
    return result


def _slice(
    tensor: torch.Tensor,
    name: str,
    structure: Structure,
    kept: dict,
) -> torch.Tensor | nn.Parameter:
    new = tensor.detach()
    for dim in range(tensor.dim()):
        index = kept.get((name, dim))
        if index is not None:
            new = new.index_select(dim, torch.from_numpy(index).to(new.device))
    new = new.clone(memory_format=_memory_format(tensor))  # which index_select does not keep
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(new, requires_grad=tensor.requires_grad)
    return new


def _memory_format(tensor: torch.Tensor) -> torch.memory_format:
    for rank, layout in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        if tensor.dim() != rank or tensor.is_contiguous():
            continue
        if tensor.is_contiguous(memory_format=layout):
            return layout
    return torch.preserve_format

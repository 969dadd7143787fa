"""Which slices a tool cut from a model, and the dense model with those slices at zero.

The cut is read from the gradients: before pruning every parameter's ``.grad`` holds the numbers of
its entries, and Torch-Pruning cuts gradients along with their parameters. No history and no graph
of either side is asked.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oracle import find, zeroed  # pyright: ignore[reportMissingImports]

Slices = dict[tuple[str, int], np.ndarray]


def number(model: nn.Module) -> None:
    """Every parameter's gradient becomes the numbers of its entries."""
    for tensor in model.parameters():
        tensor.requires_grad_(True)  # as the examples do: frozen parameters are never pruned
        tensor.grad = torch.arange(tensor.numel(), dtype=tensor.dtype).view_as(tensor)


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of all parameters and buffers, tied ones under all their names."""
    named = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    return {name: tuple(tensor.shape) for name, tensor in named}


def removed(before: Mapping[str, tuple[int, ...]], pruned: nn.Module) -> tuple[Slices, list[str]]:
    """Indices that left, by (name, dimension), and tensors whose rest stands in another order.

    The numbers in the gradients are dropped.
    """
    gone: Slices = {}
    mixed, statistics = [], []
    for name, shape in shapes(pruned).items():
        tensor = find(pruned, name)
        if tensor.grad is None:
            if shape != before[name]:
                statistics.append(name)
            continue
        for dim, kept in enumerate(_kept(tensor.grad.long().numpy(), before[name])):
            if len(kept) < before[name][dim]:
                gone[name, dim] = np.setdiff1d(np.arange(before[name][dim]), kept)
            if (np.diff(kept) < 0).any():
                mixed.append(name)
    for name in statistics:  # of a batch norm: cut like its weight
        weight = f"{name.rpartition('.')[0]}.weight"
        if before.get(weight) != before[name] or (weight, 0) not in gone:
            raise LookupError(f"cannot tell which entries of {name} left")
        gone[name, 0] = gone[weight, 0]
    for tensor in pruned.parameters():
        tensor.grad = None
    return gone, mixed


def _kept(numbers: np.ndarray, shape: tuple[int, ...]) -> list[np.ndarray]:
    """The indices by dimension whose product the numbers are."""
    if numbers.ndim != len(shape):
        raise LookupError(f"a tensor of shape {shape} became one of shape {numbers.shape}")
    kept, whole = [], np.zeros(numbers.shape, np.int64)
    for dim, size in enumerate(shape):
        stride = math.prod(shape[dim + 1 :])
        line = numbers[tuple(slice(None) if d == dim else 0 for d in range(len(shape)))]
        kept.append(line // stride % size)
        whole += (kept[-1] * stride).reshape([-1 if d == dim else 1 for d in range(len(shape))])
    if not np.array_equal(whole, numbers):
        raise LookupError("what is left of a tensor is no product of indices")
    return kept


def untied(model: nn.Module) -> nn.Module:
    """The model with a parameter of its own under every name: a tool may cut one of a pair."""
    seen: set[int] = set()
    for name, tensor in list(model.named_parameters(remove_duplicate=False)):
        if id(tensor) in seen:
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor.detach().clone()))
        seen.add(id(tensor))
    return model


def exact_reference(dense: nn.Module, gone: Slices) -> nn.Module:
    """The removed slices at zero and nothing else."""
    result = copy.deepcopy(dense)
    with torch.no_grad():
        for (name, dim), indices in gone.items():
            find(result, name).index_fill_(dim, torch.as_tensor(indices), 0)
    return result


def adapts(dense: nn.Module, gone: Slices) -> bool:
    """Whether any module has a statistic over what left, or may have one."""
    return any(
        _width_kept(name, module, gone) is not None for name, module in dense.named_modules()
    )


def adapted_reference(dense: nn.Module, gone: Slices) -> nn.Module:
    """The removed slices at zero; norms and the like of any library run over the survivors."""
    result = zeroed(dense, gone)
    for name, module in list(dense.named_modules()):
        if type(module) in (nn.LayerNorm, nn.RMSNorm) or isinstance(module, nn.GroupNorm):
            continue  # ``zeroed`` has adapted them
        kept = _width_kept(name, module, gone)
        if kept is not None:
            result.set_submodule(name, _OverSurvivors(module, name, gone, *kept))
    return result


# Zeroing is the same as removing.
_PLAIN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.PReLU)


def _width_kept(name: str, module: nn.Module, gone: Slices) -> tuple[Tensor, int] | None:
    """(survivors, width) of a module all of whose parameters lie along its channels, or of a
    convolution that works on its own weight (one that standardises it, say)."""
    if type(module) in _PLAIN or isinstance(module, nn.modules.batchnorm._BatchNorm):
        return None
    own = {leaf: p for leaf, p in module.named_parameters(recurse=False) if p.dim()}
    if not own or any(True for child in module.children() for _ in child.parameters()):
        return None
    if isinstance(module, nn.Conv2d):
        lost = gone.get((f"{name}.weight", 1))
        width = module.in_channels
        if lost is None or module.groups > 1:
            return None
        return torch.as_tensor(np.setdiff1d(np.arange(width), lost)), width
    lengths, losses = set(), []
    for leaf, tensor in own.items():
        long = [dim for dim, size in enumerate(tensor.shape) if size > 1]
        if len(long) > 1:
            return None
        if long:
            lengths.add(tensor.shape[long[0]])
            losses.append(gone.get((f"{name}.{leaf}", long[0])))
    if len(lengths) != 1 or any(lost is None for lost in losses):
        return None
    width = lengths.pop()
    if any(not np.array_equal(lost, losses[0]) for lost in losses):
        return None
    return torch.as_tensor(np.setdiff1d(np.arange(width), losses[0])), width


class _OverSurvivors(nn.Module):
    """A module whose own code runs on the channels that are left; zeros stand for the others."""

    def __init__(self, dense: nn.Module, name: str, gone: Slices, kept: Tensor, width: int) -> None:
        super().__init__()
        self.kept, self.width = kept, width
        self.small = small = copy.deepcopy(dense)
        self.wide: int | None = None
        self.out = kept
        for leaf, tensor in list(small.named_parameters(recurse=False)):
            for dim in range(tensor.dim()):
                lost = gone.get((f"{name}.{leaf}", dim))
                if lost is not None:
                    left = torch.as_tensor(np.setdiff1d(np.arange(tensor.shape[dim]), lost))
                    tensor = nn.Parameter(tensor.detach().index_select(dim, left))
                    if isinstance(dense, nn.Conv2d) and dim == 0:
                        self.out = left
            setattr(small, leaf, tensor)
        if isinstance(small, nn.Conv2d) and isinstance(dense, nn.Conv2d):
            self.wide = dense.out_channels
            self.out = self.out if small.weight.shape[0] < self.wide else torch.arange(self.wide)
            small.in_channels, small.out_channels = small.weight.shape[1], small.weight.shape[0]
        for leaf in ("normalized_shape", "num_channels", "num_features"):
            if hasattr(small, leaf):
                setattr(small, leaf, (len(kept),) if leaf == "normalized_shape" else len(kept))

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        dim = self._channels(x)
        others = [r.index_select(dim, self.kept) if _alike(r, x) else r for r in rest]
        y = self.small(x.index_select(dim, self.kept), *others)
        shape = [*y.shape[:dim], self.wide or self.width, *y.shape[dim + 1 :]]
        return y.new_zeros(shape).index_copy(dim, self.out, y)

    def _channels(self, x: Tensor) -> int:
        """Which dimension of the input the channels are."""
        first = "2d" in type(self.small).__name__ or self.wide is not None
        first = first or getattr(self.small, "data_format", "") == "channels_first"
        tensors = [p for p in self.small.parameters() if p.dim() > 1]
        if tensors and self.wide is None:  # as the parameter itself says by where it is long
            long = max(range(tensors[0].dim()), key=lambda dim: tensors[0].shape[dim])
            return x.dim() - tensors[0].dim() + long
        if first or x.shape[-1] != self.width:
            return 1
        return x.dim() - 1


def _alike(other: Any, x: Tensor) -> bool:
    return isinstance(other, Tensor) and other.shape == x.shape


@contextmanager
def scales(known: list[float] | None = None) -> Iterator[list[float]]:
    """Note the scale of every attention, in the order of the calls; or replay ``known`` ones.

    Scaled dot products, and roots taken by ``math.sqrt``. What replays another number of calls
    than were noted raises an IndexError.
    """
    noted: list[float] = []

    def scale(value: float) -> float:
        noted.append(value)
        return value if known is None else known[len(noted) - 1]

    product: Callable[..., Tensor] = F.scaled_dot_product_attention
    root = math.sqrt

    def scaled_product(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        used = note(query.shape[-1] ** -0.5 if scale is None else scale)
        return product(
            query, key, value, attn_mask, dropout_p, is_causal, scale=used, enable_gqa=enable_gqa
        )

    note = scale
    F.scaled_dot_product_attention, math.sqrt = scaled_product, lambda x: note(root(x))
    try:
        yield noted
    finally:
        F.scaled_dot_product_attention, math.sqrt = product, root

"""2:4 weights in PyTorch's semi-structured format, which NVIDIA's sparse tensor cores read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateur.errors import InputError

ROWS, COLUMNS = 32, 64  # what outputs and inputs are a multiple of, in both of PyTorch's backends
TYPES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class SemiStructured:
    """What became of the weights of linear layers.

    converted: their names. dense: name of one that stays dense -> why.
    """

    converted: tuple[str, ...]
    dense: dict[str, str]


def to_semi_structured(model: nn.Module) -> SemiStructured:
    """Keep the weights of linear layers with two zeros in every four in half the room, in place.

    The layers then answer as before, by sparse kernels; they no longer train. Convolutions have no
    such kernels. ``torch.sparse.to_sparse_semi_structured`` drops values of weights without the
    pattern and says nothing; here they stay dense and are named.
    Errors: InputError for a model that is not on a GPU, and where no weight has the pattern.
    """
    layers = {
        f"{name}.weight".lstrip("."): module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }
    if not layers:
        raise InputError("the model has no linear layers, and only they have sparse kernels")
    reasons = {name: why_not(layer.weight) for name, layer in layers.items()}
    ready = {name: layer for name, layer in layers.items() if not reasons[name]}
    if not ready:
        name, reason = next(iter(reasons.items()))
        raise InputError(f"no weight can become semi-structured: {name}: {reason}")
    for layer in ready.values():
        sparse = torch.sparse.to_sparse_semi_structured(layer.weight.detach().contiguous())
        layer.weight = nn.Parameter(sparse, requires_grad=False)
    return SemiStructured(tuple(ready), {n: why for n, why in reasons.items() if why})


def why_not(weight: Tensor) -> str:
    """Why a weight cannot be kept so; empty where it can."""
    if not follows(weight, 2, 4):
        return "more than two of four neighbouring inputs are not zero; cut it by the pattern 2:4"
    if weight.shape[0] % ROWS or weight.shape[1] % COLUMNS:
        return (
            f"its shape is {list(weight.shape)}; outputs are to be a multiple of {ROWS}, and "
            f"inputs of {COLUMNS}"
        )
    if weight.dtype not in TYPES:
        return f"it is {weight.dtype}; take model.half() or model.bfloat16()"
    if not weight.is_cuda:
        return "it is not on an NVIDIA GPU; take model.cuda()"
    return ""


def follows(weight: Tensor, kept: int, of: int, dim: int = 1) -> bool:
    """Whether of every ``of`` neighbouring inputs at most ``kept`` are not zero, on every row."""
    if weight.shape[dim] % of:
        return False
    groups = weight.detach().movedim(dim, -1).unflatten(-1, (-1, of))
    return bool(((groups != 0).sum(-1) <= kept).all())

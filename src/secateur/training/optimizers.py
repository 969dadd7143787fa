"""Optimizers by name, with weight decay on matrices and kernels alone."""

from __future__ import annotations

import math

import torch
from torch import nn

from secateur.errors import InputError
from secateur.registry import unknown

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}

SECOND_BETA = 0.999


def make_optimizer(
    model: nn.Module,
    name: str = "sgd",
    learning_rate: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    decay_all: bool = False,
    scaled: bool = False,
) -> torch.optim.Optimizer:
    """An optimizer over the parameters of ``model`` that require a gradient.

    name:         sgd, adam or adamw.
    momentum:     of sgd, in [0, 1); the first beta of adam and adamw.
    weight_decay: for tensors of two dimensions or more; those of one are biases and the scales
                  of norms, and decay only with ``decay_all``.
    scaled:       whether a gradient scaler may skip steps.
    Errors: InputError for an unknown name, a number out of range, a model that cannot be trained.
    """
    check(name, learning_rate, momentum, weight_decay)
    decayed, free = [], []
    for parameter in model.parameters():
        if parameter.requires_grad:
            (decayed if decay_all or parameter.dim() > 1 else free).append(parameter)
    parameters = decayed + free
    if not parameters:
        raise InputError("the model has no parameter that requires a gradient: nothing to train")
    groups = [
        {"params": members, "weight_decay": decay}
        for members, decay in ((decayed, weight_decay), (free, 0.0))
        if members
    ]
    # One kernel for a whole step: several times faster on small tensors, on CPU and GPU.
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
    if name == "sgd":
        # A first step that the scaler skips leaves the momentum of the fused kernel as the memory
        # happened to be (PyTorch 2.13), and the next step adds that to the weights.
        fused = fused and not scaled
        return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, fused=fused)
    kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    return kind(groups, lr=learning_rate, betas=(momentum, SECOND_BETA), fused=fused)


def check(name: str, learning_rate: float, momentum: float, weight_decay: float) -> None:
    """Errors: InputError for what no optimizer can work with."""
    if name not in OPTIMIZERS:
        raise InputError(unknown("optimizer", name, OPTIMIZERS))
    if not 0 < learning_rate < math.inf:
        raise InputError(f"learning_rate is {learning_rate}; give a number above 0, such as 0.01")
    if not 0 <= momentum < 1:
        raise InputError(f"momentum is {momentum}; give a number in [0, 1), such as 0.9")
    if not 0 <= weight_decay < math.inf:
        raise InputError(f"weight_decay is {weight_decay}; give 0 or a number above it")


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """The learning rate of the next step, for all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate

"""Gradients of calibration batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from secateur.training.loading import move
from secateur.training.statistics.passes import Source, loss_of, no_batch, undisturbed

KINDS = frozenset({"gradients"})


def gradients(source: Source, needs: frozenset[str]) -> dict[str, Any]:
    """Per parameter one gradient for each slot, the mean over the slot's batches.

    Of more batches than fit into memory, batch i is averaged into slot i modulo the slots.
    """
    parameters = source.parameters
    size = sum(parameter.nbytes for parameter in parameters.values())
    slots = max(1, source.memory // max(size, 1))
    result: dict[str, list[torch.Tensor]] = {name: [] for name in parameters}
    number = -1
    with undisturbed(source.model, source.device):
        for number, (inputs, targets) in enumerate(source.batches):
            inputs, targets = move(inputs, source.device), move(targets, source.device)
            value = loss_of(source, inputs, targets, number)
            found = torch.autograd.grad(value, [*parameters.values()], allow_unused=True)
            slot, before = number % slots, number // slots
            for (name, parameter), gradient in zip(parameters.items(), found, strict=True):
                fresh = stored(gradient, parameter)
                if before:
                    mean = result[name][slot]
                    result[name][slot] = mean + (fresh - mean) / (before + 1)
                else:
                    result[name].append(fresh)
    if number < 0:
        raise no_batch()
    return {"gradients": result}


def stored(gradient: torch.Tensor | None, parameter: nn.Parameter) -> torch.Tensor:
    """A gradient on the CPU; zeros, which take no room, where the loss does not depend on it."""
    if gradient is None:
        return torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
    return (gradient.to_dense() if gradient.is_sparse else gradient).cpu()

"""What criteria read: the tensors of a model, and gradients over calibration batches."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn

from secateur.errors import InputError, PlanMismatch
from secateur.protocols import Statistics
from secateur.structure.structure import Structure
from secateur.training.devices import device_of
from secateur.training.loading import Batch, forward, move
from secateur.training.losses import Loss, default_loss

KNOWN = frozenset({"gradients"})
MEMORY = 2 * 2**30  # bytes of gradients


def collect(
    model: nn.Module,
    structure: Structure,
    batches: Iterable[Batch] | None = None,
    loss: Loss = default_loss,
    needs: Collection[str] = (),
    generator: torch.Generator | None = None,
    memory: int = MEMORY,
) -> Statistics:
    """What ``needs`` names, from one pass over ``batches``; tensors share the model's storage.

    needs:     ``gradients``: of ``loss``, for every parameter that a group touches, one for each
               batch, in the parameter's type, on the CPU. The model is in eval mode meanwhile.
    batches:   (inputs, targets); read only where something is needed.
    loss:      (outputs, targets) -> scalar.
    generator: handed on, for criteria that draw.
    memory:    bytes of gradients to hold. Of more batches than fit, batch i is averaged into slot
               i modulo the number of slots: fewer and larger batches, of all the data. One
               gradient is held at least.
    The model is left as it was: ``.grad``, modes, buffers, and which parameters require gradients.
    Errors: InputError for unknown needs, no batch, a loss that is no finite scalar; PlanMismatch
    where the structure is of another model.
    """
    unknown = sorted(set(needs) - KNOWN)
    if unknown:
        raise InputError(
            f"no statistic is called {', '.join(map(repr, unknown))}; known are "
            f"{', '.join(sorted(KNOWN))}"
        )
    tensors = _tensors(model, structure)
    if "gradients" not in needs:
        return Statistics(tensors, generator=generator)
    if batches is None:
        raise InputError(
            "gradients need data, and none was given; give batches of (inputs, targets)"
        )
    wanted = dict.fromkeys(
        member.tensor
        for group in structure.groups
        for member in group.members
        if member.role != "stat"
    )
    parameters = dict(model.named_parameters())
    chosen = {name: parameters[name] for name in wanted}
    return Statistics(tensors, _gradients(model, chosen, batches, loss, memory), generator)


def _tensors(model: nn.Module, structure: Structure) -> dict[str, torch.Tensor]:
    found = {
        name: tensor.detach() for name, tensor in chain(model.named_parameters(),
                                                        model.named_buffers())
    }  # fmt: skip
    for name, shape in structure.shapes.items():
        seen = tuple(found[name].shape) if name in found else None
        if seen != tuple(shape):
            state = "missing" if seen is None else f"of shape {list(seen)}"
            raise PlanMismatch(
                f"the structure is not of this model: its tensor {name!r} of shape "
                f"{list(shape)} is {state} here; trace this model"
            )
    return {name: found[name] for name in structure.shapes}


def _gradients(
    model: nn.Module,
    parameters: dict[str, nn.Parameter],
    batches: Iterable[Batch],
    loss: Loss,
    memory: int,
) -> dict[str, list[torch.Tensor]]:
    """Per parameter one gradient for each slot, the mean over the slot's batches."""
    size = sum(parameter.nbytes for parameter in parameters.values())
    slots = max(1, memory // max(size, 1))
    result: dict[str, list[torch.Tensor]] = {name: [] for name in parameters}
    device = device_of(model)
    number = -1
    with _undisturbed(model, device):
        for number, (inputs, targets) in enumerate(batches):
            inputs, targets = move(inputs, device), move(targets, device)
            value = _scalar(loss(forward(model, inputs), targets), number)
            found = torch.autograd.grad(value, [*parameters.values()], allow_unused=True)
            slot, before = number % slots, number // slots
            for (name, parameter), gradient in zip(parameters.items(), found, strict=True):
                fresh = _stored(gradient, parameter)
                if before:
                    mean = result[name][slot]
                    result[name][slot] = mean + (fresh - mean) / (before + 1)
                else:
                    result[name].append(fresh)
    if number < 0:
        raise InputError("the data holds no batch; give at least one batch of (inputs, targets)")
    return result


def _stored(gradient: torch.Tensor | None, parameter: nn.Parameter) -> torch.Tensor:
    """A gradient on the CPU; zeros, which take no room, where the loss does not depend on it."""
    if gradient is None:
        return torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
    return (gradient.to_dense() if gradient.is_sparse else gradient).cpu()


def _scalar(value: Any, number: int) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        shape = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise InputError(f"the loss returned {shape}; expected one number for a batch")
    if not bool(torch.isfinite(value)):
        raise InputError(
            f"the loss of calibration batch {number} is {value.item()}; give data and weights "
            "for which it is finite"
        )
    if not value.requires_grad:
        raise InputError(
            "the loss does not depend on the parameters by differentiable operations; "
            "do not detach outputs in it, nor run forward under no_grad"
        )
    return value.reshape(())


@contextmanager
def _undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode, gradients for every parameter, one state of the random generators; then back."""
    modes = [(module, module.training) for module in model.modules()]
    required = [(p, p.requires_grad) for p in model.parameters() if p.is_floating_point()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gpus = [device] if device.type == "cuda" else []
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(gpus))
            torch.manual_seed(0)
            stack.enter_context(torch.enable_grad())
            if gpus and any(isinstance(module, nn.RNNBase) for module in model.modules()):
                # cuDNN computes no gradients of recurrent layers in eval mode.
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            model.eval()
            for parameter, _ in required:
                parameter.requires_grad_(True)
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag in required:
            parameter.requires_grad_(flag)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)

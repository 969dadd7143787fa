"""What every pass over calibration data shares: its source, and a model that is left as it was."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from secateur.errors import InputError
from secateur.structure.structure import Structure
from secateur.training.devices import device_of
from secateur.training.loading import Batch, forward
from secateur.training.losses import Loss, default_loss


@dataclass(frozen=True, eq=False)
class Source:
    """What statistics are collected from.

    parameters: those that groups touch, and further ones that were asked for, by canonical name.
    batches:    (inputs, targets); read once by each pass. memory: bytes that a pass may hold.
    """

    model: nn.Module
    structure: Structure
    parameters: dict[str, nn.Parameter]
    batches: Iterable[Batch]
    loss: Loss
    memory: int

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return device_of(self.model)


def touched(
    model: nn.Module, structure: Structure, further: Collection[str]
) -> dict[str, nn.Parameter]:
    """Parameters of all groups and the further ones. Errors: InputError for no parameter."""
    parameters = dict(model.named_parameters())
    names = dict.fromkeys(
        member.tensor
        for group in structure.groups
        for member in group.members
        if member.role != "stat"
    )
    for name in further:
        if name not in parameters:
            raise InputError(f"there is no parameter {name!r} to collect statistics of")
        names[name] = None
    return {name: parameters[name] for name in names}


def scalar(value: Any, number: int, what: str = "batch") -> torch.Tensor:
    """The loss of a batch as one number. Errors: InputError where it is none, or not finite."""
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        shape = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise InputError(f"the loss returned {shape}; expected one number for a batch")
    if not bool(torch.isfinite(value)):
        raise InputError(
            f"the loss of calibration {what} {number} is {value.item()}; give data and weights "
            "for which it is finite"
        )
    return value.reshape(())


def value_of(source: Source, inputs: Any, targets: Any, number: int, what: str = "batch") -> Any:
    """The loss of a batch. Errors: InputError, for a batch without labels too."""
    if targets is None and source.loss is default_loss:
        raise InputError(
            "these scores need labels, and the calibration batches have none; give batches of "
            "(inputs, targets), or a criterion that needs none, such as 'obs' or 'l2'"
        )
    return scalar(source.loss(forward(source.model, inputs), targets), number, what)


def loss_of(source: Source, inputs: Any, targets: Any, number: int, what: str = "batch") -> Any:
    """The loss with its graph. Errors: InputError, as ``collect``."""
    value = value_of(source, inputs, targets, number, what)
    if not value.requires_grad:
        raise InputError(
            "the loss does not depend on the parameters by differentiable operations; "
            "do not detach outputs in it, nor run forward under no_grad"
        )
    return value


def no_batch() -> InputError:
    """The error for data without any."""
    return InputError("the data holds no batch; give at least one batch of (inputs, targets)")


@contextmanager
def undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
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

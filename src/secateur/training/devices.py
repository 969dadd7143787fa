"""Where a model runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn

from secateur.errors import InputError


def resolve(name: str | torch.device = "auto") -> torch.device:
    """The device called ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:1``.

    Errors: InputError for another name, and for cuda without such a GPU.
    """
    text = str(name)
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise InputError(f"there is no device {text!r}; choose auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {text!r} is not supported; choose auto, cpu or cuda")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise InputError(f"device {text!r}: PyTorch sees no GPU here; choose auto or cpu")
        if (device.index or 0) >= count:
            raise InputError(f"device {text!r}: PyTorch sees {count} GPU(s), numbered from 0")
    return device


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first tensor; the CPU for a model without any."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all its work, so that a clock may be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def visiting(model: nn.Module, device: torch.device, channels_last: bool = False) -> Iterator[None]:
    """The model on ``device``; afterwards its device and the mode of each part are as before."""
    home, mode = device_of(model), model.training
    modes = [(module, module.training) for module in model.modules()]
    model.to(device)
    if channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        yield
    finally:
        if channels_last:
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        model.to(home)
        model.train(mode)
        for module, training in modes:
            module.training = training

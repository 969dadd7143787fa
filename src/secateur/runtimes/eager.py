"""Plain PyTorch, with a fixed number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils import _pytree as pytree

from secateur.errors import InputError
from secateur.structure.copying import copied
from secateur.structure.inputs import ExampleInputs, as_arguments, map_tensors


def runner(
    model: nn.Module, threads: int = 1, device: torch.device | str | None = None
) -> Callable[[ExampleInputs], list[torch.Tensor]]:
    """A function from inputs to the flat list of output tensors.

    It runs a copy of the model in eval mode without gradients; device: None for where the model
    is. The number of threads is set for each call and restored after it.
    Errors: InputError for less than one thread.
    """
    _check(threads)
    own = copied(model).eval()
    if device is not None:
        own = own.to(device)
    place = next((t.device for t in [*own.parameters(), *own.buffers()]), torch.device("cpu"))

    def run(inputs: ExampleInputs) -> list[torch.Tensor]:
        args, kwargs = map_tensors(lambda t: t.to(place), as_arguments(inputs))
        with fixed_threads(threads), torch.inference_mode():
            outputs = pytree.tree_leaves(own(*args, **kwargs))
        return [leaf for leaf in outputs if isinstance(leaf, torch.Tensor)]

    return run


@contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """PyTorch on ``threads`` threads; restored afterwards. Errors: InputError below 1."""
    _check(threads)
    before = torch.get_num_threads()
    if before == threads:  # setting it wakes the thread pool, even to the same number
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check(threads: int) -> None:
    if threads < 1:
        raise InputError(f"threads is {threads}; expected 1 or more")

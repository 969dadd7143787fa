"""Plain PyTorch, with a fixed number of threads."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import nn
from torch.utils import _pytree as pytree

from secateur.errors import InputError
from secateur.runtimes import loads, runtime
from secateur.runtimes._engine import Engine
from secateur.runtimes._programs import engine_of, fixed_threads, program_of
from secateur.structure.copying import copied
from secateur.structure.inputs import ExampleInputs, as_arguments, map_tensors


@runtime("eager")
@loads(".pt2")
def load_eager(
    source: str | os.PathLike[str] | nn.Module,
    threads: int = 1,
    precision: str = "f32",
    profile: bool = False,
) -> Engine:
    """PyTorch as it is, for an exported program (.pt2).

    Errors: InputError for a file that cannot be loaded, less than one thread or more than there
    are cores.
    """
    model, shown = program_of(source)
    return engine_of("PyTorch", model, shown, threads, precision)


def runner(
    model: nn.Module, threads: int = 1, device: torch.device | str | None = None
) -> Callable[[ExampleInputs], list[torch.Tensor]]:
    """A function from inputs to the flat list of output tensors.

    It runs a copy of the model in eval mode without gradients; device: None for where the model
    is. The number of threads is set for each call and restored after it.
    Errors: InputError for less than one thread.
    """
    if threads < 1:
        raise InputError(f"threads is {threads}; expected 1 or more")
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

"""torch.compile (Inductor) on the CPU, with weights frozen into the code."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from secateur.runtimes import loads, runtime
from secateur.runtimes._engine import Engine
from secateur.runtimes._programs import engine_of, program_of


@runtime("compile")
@loads(".pt2", slow=True)
def load_compiled(
    source: str | os.PathLike[str] | nn.Module,
    threads: int = 1,
    precision: str = "f32",
    profile: bool = False,
) -> Engine:
    """PyTorch's compiler with frozen weights, for an exported program (.pt2).

    It compiles at the first run, which takes seconds to minutes and needs a C++ compiler.
    Errors: InputError for a file that cannot be loaded, less than one thread or more than there
    are cores; where it cannot compile, at the first run.
    """
    model, shown = program_of(source)
    return engine_of("torch.compile", model, shown, threads, precision, _compiled)


def _compiled(model: nn.Module) -> Callable[..., Any]:
    return torch.compile(model, dynamic=False, options={"freezing": True})

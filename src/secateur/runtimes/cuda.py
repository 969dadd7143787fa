"""Plain PyTorch on the first NVIDIA GPU."""

from __future__ import annotations

import os

import torch
from torch import nn

from secateur.errors import InputError
from secateur.runtimes import loads, runtime
from secateur.runtimes._engine import Engine
from secateur.runtimes._programs import engine_of, program_of


@runtime("cuda")
@loads(".pt2", precisions=("f32", "bf16"), wall=True, check=lambda: _require_gpu())
def load_cuda(
    source: str | os.PathLike[str] | nn.Module,
    threads: int = 1,
    precision: str = "f32",
    profile: bool = False,
) -> Engine:
    """PyTorch on an NVIDIA GPU, for an exported program (.pt2); inputs and outputs are copied.

    Errors: InputError for a file that cannot be loaded, and where there is no GPU.
    """
    _require_gpu()
    model, shown = program_of(source)
    return engine_of("PyTorch on CUDA", model, shown, threads, precision, device="cuda")


def _require_gpu() -> None:
    if not torch.cuda.is_available():
        raise InputError("the runtime cuda needs an NVIDIA GPU and a CUDA build of PyTorch")

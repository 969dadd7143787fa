"""The global random number generators: torch, numpy and Python, captured and put back."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

Tensors = dict[str, torch.Tensor]


def seed_all(seed: int) -> None:
    """Seed all global generators."""
    torch.manual_seed(seed)  # of every device
    np.random.seed(seed % 2**32)
    random.seed(seed)


def capture(device: torch.device) -> tuple[Tensors, dict[str, Any]]:
    """The states of all global generators, as tensors and as values that JSON can hold."""
    tensors = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    name, keys, position, has_gauss, gauss = np.random.get_state()
    version, words, following = random.getstate()
    values = {
        "numpy": [str(name), np.asarray(keys).tolist(), position, has_gauss, gauss],
        "python": [version, list(words), following],
    }
    return tensors, values


def put_back(
    tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any], device: torch.device
) -> None:
    """Set all global generators to captured states."""
    torch.set_rng_state(tensors["cpu"].cpu())
    if device.type == "cuda" and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"].cpu(), device)
    name, keys, position, has_gauss, gauss = values["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    version, words, following = values["python"]
    random.setstate((version, tuple(words), following))


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Whatever is drawn inside, the global generators go on afterwards as if it had not been."""
    on_gpu = device.type == "cuda"
    torch_state, numpy_state, python_state = (
        torch.get_rng_state(),
        np.random.get_state(),
        random.getstate(),
    )
    gpu_state = torch.cuda.get_rng_state(device) if on_gpu else None
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        if gpu_state is not None:
            torch.cuda.set_rng_state(gpu_state, device)

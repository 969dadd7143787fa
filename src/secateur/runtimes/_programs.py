"""PyTorch programs as engines: exported ones (.pt2), and modules in memory."""

from __future__ import annotations

import inspect
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from secateur.errors import InputError
from secateur.runtimes import check_threads
from secateur.runtimes._engine import Engine, Feed, first_line


def program_of(source: str | os.PathLike[str] | nn.Module) -> tuple[nn.Module, str]:
    """A module to run, and what to call it. Errors: InputError for a file that is no program."""
    if isinstance(source, nn.Module):
        return source, "a layer"
    path = Path(source)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    if not zipfile.is_zipfile(path):
        raise InputError(f"PyTorch cannot load {path}: it is no whole .pt2 file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(path).module(), path.name
    except Exception as error:  # it raises types of several packages
        raise InputError(f"PyTorch cannot load {path}: {first_line(error)}") from error


def engine_of(
    runtime: str,
    model: nn.Module,
    shown: str,
    threads: int,
    precision: str,
    prepare: Callable[[nn.Module], Callable[..., Any]] = lambda model: model,
    device: str = "cpu",
) -> Engine:
    """A module as an engine; its inputs are those that its ``forward`` needs, in order.

    prepare: makes of the module what is called, as torch.compile does.
    """
    if device == "cpu":
        check_threads(threads)
    model = model.to(device)
    if precision == "bf16":
        model = model.to(torch.bfloat16)
    called = prepare(model)
    parameters = inspect.signature(model.forward).parameters.values()
    names = [p.name for p in parameters if p.default is p.empty]
    spec = _leaves(model)
    if spec is not None and len(spec) != len(names):
        names = spec

    def infer(feed: Feed) -> list[np.ndarray]:
        tensors = [_cast(torch.from_numpy(feed[name]).to(device), precision) for name in names]
        with fixed_threads(threads), torch.inference_mode():
            args, kwargs = _arguments(model, tensors)
            leaves = pytree.tree_leaves(called(*args, **kwargs))
            found = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
            return [_uncast(leaf).cpu().numpy() for leaf in found]

    return Engine(
        runtime, shown, tuple(names), (), tuple(() for _ in names), tuple("" for _ in names),
        infer, called,
    )  # fmt: skip


def _leaves(model: nn.Module) -> list[str] | None:
    """Names for the flat inputs of an exported program; None for another module."""
    spec = getattr(model, "_in_spec", None)
    if spec is None:
        return None
    return [f"input_{i}" for i in range(spec.num_leaves)]


def _arguments(model: nn.Module, tensors: list[torch.Tensor]) -> tuple[Any, dict[str, Any]]:
    spec = getattr(model, "_in_spec", None)
    if spec is None or spec.num_leaves != len(tensors):
        return tensors, {}
    return pytree.tree_unflatten(tensors, spec)


def _cast(tensor: torch.Tensor, precision: str) -> torch.Tensor:
    if precision == "bf16" and tensor.is_floating_point():
        return tensor.to(torch.bfloat16)
    return tensor


def _uncast(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


@contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """PyTorch on ``threads`` threads; restored afterwards. Errors: InputError below 1."""
    if threads < 1:
        raise InputError(f"threads is {threads}; expected 1 or more")
    before = torch.get_num_threads()
    if before == threads:  # setting it wakes the thread pool, even to the same number
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""Inputs and expected outputs beside an exported file, for a process that has nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn
from torch.utils import _pytree as pytree

from secateur.structure.caches import known_caches
from secateur.structure.copying import copied
from secateur.structure.inputs import ExampleInputs, as_arguments

SUFFIX = ".check.safetensors"


def check_path(path: Path) -> Path:
    """Where the check file of an export lies: ``model.check.safetensors`` beside ``model.onnx``."""
    return path.with_name(path.name + SUFFIX)


def write_check(path: Path, model: nn.Module, example_inputs: ExampleInputs) -> Path:
    """The example inputs and what the PyTorch model answers, in float32 on the CPU."""
    args, kwargs = as_arguments(example_inputs)
    own = copied(model).cpu().eval()
    with torch.no_grad(), known_caches():
        outputs = pytree.tree_leaves(own(*_on_cpu(args), **_on_cpu(kwargs)))
    return write_arrays(path, _arrays((args, kwargs)), _arrays(outputs))


def write_arrays(path: Path, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> Path:
    """A check file of flat inputs and outputs, in their order."""
    arrays = {f"input.{n:04}": np.ascontiguousarray(x) for n, x in enumerate(inputs)}
    arrays |= {f"output.{n:04}": np.ascontiguousarray(x) for n, x in enumerate(outputs)}
    place = check_path(path)
    partial = place.with_name(f".{place.name}.{os.getpid()}")
    save_file(arrays, partial)
    os.replace(partial, place)
    return place


def _arrays(tree: Any) -> list[np.ndarray]:
    leaves = pytree.tree_leaves(tree)
    return [t.detach().cpu().numpy() for t in leaves if isinstance(t, torch.Tensor)]


def _on_cpu(tree: Any) -> Any:
    return pytree.tree_map(lambda x: x.cpu() if isinstance(x, torch.Tensor) else x, tree)

"""Weights, plan and surgery as ``secateur.save`` writes them."""

from __future__ import annotations

import os
import time

import torch
from torch import nn

from secateur.errors import ExportError
from secateur.exporters import exporter
from secateur.exporters._result import ExportResult
from secateur.structure.inputs import ExampleInputs
from secateur.surgery.storing import read_tensors, save
from secateur.surgery.tensors import named_tensors


@exporter("safetensors")
def export_weights(
    model: nn.Module, example_inputs: ExampleInputs, path: str | os.PathLike[str]
) -> ExportResult:
    """A folder with safetensors weights and the plan; ``secateur.load`` reads it.

    Every tensor is read back and compared bit by bit; example_inputs are not needed.
    Errors: InputError for a model that ``apply`` did not make.
    """
    start = time.perf_counter()
    folder = save(model, path)
    stored = read_tensors(folder / "model.safetensors")
    for name, tensor in named_tensors(model).items():
        # Tied tensors are stored under one of their names.
        if name in stored and not torch.equal(stored[name], tensor.detach().cpu()):
            raise ExportError(f"'{name}' in {folder} is not what was written; is the disk whole?")
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    seconds = time.perf_counter() - start
    return ExportResult("safetensors", folder, size, 0.0, 0.0, True, (), seconds)

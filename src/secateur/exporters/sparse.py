"""Sparse weights: what masks set to zero costs next to nothing in the file."""

from __future__ import annotations

import os
import time

import torch
from torch import fx, nn

from secateur.errors import ExportError, InputError
from secateur.exporters import exporter, refuses, writes
from secateur.exporters._files import target
from secateur.exporters._result import ExportResult
from secateur.structure.inputs import ExampleInputs
from secateur.surgery.encoding import read_sparse, write_sparse, zstandard_package
from secateur.surgery.tensors import unique_tensors


def refuse_without_package(model: nn.Module, graph: fx.Graph) -> None:
    """Errors: InputError for the package that compresses, where it is not installed."""
    zstandard_package()


@exporter("sparse")
@writes(".sparse")
@refuses(refuse_without_package)
def export_sparse(
    model: nn.Module, example_inputs: ExampleInputs, path: str | os.PathLike[str]
) -> ExportResult:
    """All parameters and buffers as bit masks and the values that are not zero, compressed.

    ``secateur.load_sparse`` reads it into a model. Every tensor is read back and compared with
    what was written; example_inputs are not needed. Errors: InputError; ExportError where a disk
    fails.
    """
    start = time.perf_counter()
    path = target(path, ".sparse")
    tensors = {name: tensor.detach().cpu() for name, tensor in unique_tensors(model).items()}
    write_sparse(path, tensors)
    for name, tensor in read_sparse(path):
        if not torch.equal(torch.nan_to_num(tensor), torch.nan_to_num(tensors[name])):
            raise ExportError(f"'{name}' in {path} is not what was written; is the disk whole?")
    seconds = time.perf_counter() - start
    return ExportResult("sparse", path, path.stat().st_size, 0.0, 0.0, True, (), seconds)


def load_sparse(path: str | os.PathLike[str], model: nn.Module) -> nn.Module:
    """Write the tensors of a ``.sparse`` file into a model of the same shape, which is returned.

    Errors: InputError for a broken file, and tensors that the model lacks or has otherwise; the
    model is then partly written.
    """
    own = unique_tensors(model)
    seen = set()
    with torch.no_grad():
        for name, tensor in read_sparse(path):
            if name not in own:
                raise InputError(f"{path} holds '{name}', which the model does not have")
            if own[name].shape != tensor.shape or own[name].dtype != tensor.dtype:
                raise InputError(
                    f"{path} holds '{name}' as {tensor.dtype} {list(tensor.shape)}; the model "
                    f"has {own[name].dtype} {list(own[name].shape)}"
                )
            own[name].copy_(tensor)
            seen.add(name)
    missing = sorted(own.keys() - seen)
    if missing:
        raise InputError(f"{path} lacks '{missing[0]}', which the model has")
    return model

"""Inputs and expected outputs beside an exported file, for a process that has nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from secateur.exporters._arrays import as_array
from secateur.exporters._result import ExportResult
from secateur.exporters._serving import CHECKED, check_path
from secateur.runtimes.onnxruntime import session
from secateur.structure.caches import known_caches
from secateur.structure.copying import copied
from secateur.structure.inputs import ExampleInputs, as_arguments
from secateur.surgery.storing import write_tensors


def write_beside(found: ExportResult, model: nn.Module, example_inputs: ExampleInputs) -> None:
    """The check file of an export, where its format has one."""
    if found.format == "onnx-int8":  # 8 bits answer otherwise than the model: that is expected
        run = session(found.path)
        feed = run.feed(example_inputs)
        outputs = run.run(feed)
        write_tensors_beside(
            found.path,
            [torch.from_numpy(x) for x in feed.values()],
            [torch.from_numpy(x) for x in outputs],
        )
    elif found.format in CHECKED:
        write_check(found.path, model, example_inputs)


def write_check(path: Path, model: nn.Module, example_inputs: ExampleInputs) -> Path:
    """The example inputs and what the PyTorch model answers, on the CPU."""
    args, kwargs = as_arguments(example_inputs)
    own = copied(model).cpu().eval()
    with torch.no_grad(), known_caches():
        outputs = pytree.tree_leaves(own(*_on_cpu(args), **_on_cpu(kwargs)))
    return write_tensors_beside(path, _tensors((args, kwargs)), _tensors(outputs))


def write_tensors_beside(
    path: Path, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
) -> Path:
    """A check file of flat inputs and outputs, in their order.

    Inputs keep their type, which the file wants; outputs are what numpy can hold of them.
    """
    tensors = {f"input.{n:04}": x.detach().cpu() for n, x in enumerate(inputs)}
    arrays = [as_array(x) for x in outputs]
    tensors |= {f"output.{n:04}": torch.from_numpy(x) for n, x in enumerate(arrays)}
    write_tensors(check_path(path), tensors)
    return check_path(path)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _on_cpu(tree: Any) -> Any:
    return pytree.tree_map(lambda x: x.cpu() if isinstance(x, torch.Tensor) else x, tree)

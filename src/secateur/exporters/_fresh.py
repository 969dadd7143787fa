"""Run by path in a fresh process: loads one export with its runtime alone, and compares.

    python -I _fresh.py FORMAT FILE CHECK_FILE

Imports nothing of Secateur, so that it shows what a server needs. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def main(kind: str, path: str, check: str) -> dict[str, Any]:
    """The largest difference from the expected outputs, and which runtimes were imported."""
    try:
        arrays = _read(kind, check)
    except Exception as error:  # whatever the reader raises says that it is no whole file
        return {
            "error": f"its check file {Path(check).name} cannot be read ({sentence(error)}); "
            "export it again"
        }
    inputs = [arrays[name] for name in sorted(arrays) if name.startswith("input.")]
    expected = [arrays[name] for name in sorted(arrays) if name.startswith("output.")]
    if not expected:
        return {"error": f"{Path(check).name} is no check file: it holds no outputs; export again"}
    seen = RUN[kind](path, inputs)
    if len(seen) != len(expected):
        return {
            "error": f"it has {len(seen)} outputs; {len(expected)} are expected by "
            f"{Path(check).name}"
        }
    largest = relative = 0.0
    for one, other in zip(expected, seen, strict=True):
        if one.shape != other.shape:
            return {"error": f"an output is {list(other.shape)}; {list(one.shape)} is expected"}
        number = np.complex128 if np.iscomplexobj(one) else np.float64
        one, other = np.asarray(one, number), np.asarray(other, number)
        distance = np.abs(one - other)
        distance[(one == other) | (np.isnan(one) & np.isnan(other))] = 0
        distance[np.isnan(distance)] = np.inf
        gap = float(distance.max(initial=0.0))
        scale = float(np.abs(one[np.isfinite(one)]).max(initial=0.0))
        largest = max(largest, gap)
        relative = max(relative, gap / scale if scale else (np.inf if gap else 0.0))
    known = ("torch", "onnxruntime", "openvino", "secateur")
    return {
        "max_abs": largest,
        "relative": relative,
        "imported": [name for name in known if name in sys.modules],
    }


def sentence(error: BaseException) -> str:
    """What an error of a runtime says; those that put their own places first say it last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return f"{type(error).__name__}: no sentence"
    last = lines[0].startswith(("Exception from", "The following operation failed in"))
    said = lines[-1] if last else lines[0]
    name = type(error).__name__
    return said if said.startswith(name) else f"{name}: {said}"


def _read(kind: str, check: str) -> dict[str, Any]:
    """The arrays of a check file; tensors for PyTorch, which has types that numpy lacks."""
    if kind in ("torch-export", "torchscript"):
        from safetensors.torch import load_file as load_tensors

        found = load_tensors(check)
        return {
            name: tensor if name.startswith("input.") else tensor.numpy()
            for name, tensor in found.items()
        }
    from safetensors.numpy import load_file

    return load_file(check)


def _paired(names: list[Any], inputs: list[Any]) -> dict[Any, Any]:
    """Inputs by name. Errors: ValueError for a check file of another model."""
    if len(names) != len(inputs):
        raise ValueError(f"it takes {len(names)} inputs, and its check file holds {len(inputs)}")
    return dict(zip(names, inputs, strict=True))


def _array(tensor: Any) -> Any:
    """A tensor as an array; of floats that numpy lacks, as float32."""
    return tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy()


def _onnxruntime(path: str, inputs: list[Any]) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return list(session.run(None, _paired(names, inputs)))


def _openvino(path: str, inputs: list[Any]) -> list[Any]:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    found = compiled(_paired(list(range(len(compiled.inputs))), inputs))
    return [np.array(found[port]) for port in compiled.outputs]


def _torch_export(path: str, inputs: list[Any]) -> list[Any]:
    import torch
    from torch.utils import _pytree as pytree

    program = torch.export.load(path)
    given: Any = program.call_spec.in_spec
    _paired(list(range(given.num_leaves)), inputs)
    args, kwargs = pytree.tree_unflatten([torch.as_tensor(x) for x in inputs], given)
    with torch.no_grad():
        found = pytree.tree_leaves(program.module()(*args, **kwargs))
    return [_array(leaf) for leaf in found if isinstance(leaf, torch.Tensor)]


def _torchscript(path: str, inputs: list[Any]) -> list[Any]:
    import torch

    with torch.no_grad():
        found = torch.jit.load(path)(*map(torch.as_tensor, inputs))
    leaves = [found] if isinstance(found, torch.Tensor) else found
    return [_array(leaf) for leaf in leaves]


RUN = {
    "onnx": _onnxruntime,
    "onnx-int8": _onnxruntime,
    "openvino": _openvino,
    "torch-export": _torch_export,
    "torchscript": _torchscript,
}

if __name__ == "__main__":
    try:
        answer = main(*sys.argv[1:])
    except Exception as error:  # whatever a runtime raises is the answer
        answer = {"error": sentence(error)}
    print(json.dumps(answer))

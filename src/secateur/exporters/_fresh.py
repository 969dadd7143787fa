"""Run by path in a fresh process: loads one export with its runtime alone, and compares.

    python -I _fresh.py FORMAT FILE CHECK_FILE

Imports nothing of Secateur, so that it shows what a server needs. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from safetensors.numpy import load_file


def main(kind: str, path: str, check: str) -> dict[str, Any]:
    """The largest difference from the expected outputs, and which runtimes were imported."""
    arrays = load_file(check)
    inputs = [arrays[name] for name in sorted(arrays) if name.startswith("input.")]
    expected = [arrays[name] for name in sorted(arrays) if name.startswith("output.")]
    seen = RUN[kind](path, inputs)
    if len(seen) != len(expected):
        return {"error": f"it has {len(seen)} outputs; {len(expected)} are expected"}
    largest = relative = 0.0
    for one, other in zip(expected, seen, strict=True):
        if one.shape != other.shape:
            return {"error": f"an output is {list(other.shape)}; {list(one.shape)} is expected"}
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
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


def _onnxruntime(path: str, inputs: list[Any]) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return list(session.run(None, dict(zip(names, inputs, strict=True))))


def _openvino(path: str, inputs: list[Any]) -> list[Any]:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    found = compiled(dict(enumerate(inputs)))
    return [np.array(found[port]) for port in compiled.outputs]


def _torch_export(path: str, inputs: list[Any]) -> list[Any]:
    import torch
    from torch.utils import _pytree as pytree

    program = torch.export.load(path)
    given: Any = program.call_spec.in_spec
    args, kwargs = pytree.tree_unflatten([torch.from_numpy(x) for x in inputs], given)
    with torch.no_grad():
        found = pytree.tree_leaves(program.module()(*args, **kwargs))
    return [leaf.numpy() for leaf in found if isinstance(leaf, torch.Tensor)]


def _torchscript(path: str, inputs: list[Any]) -> list[Any]:
    import torch

    with torch.no_grad():
        found = torch.jit.load(path)(*[torch.from_numpy(x) for x in inputs])
    leaves = [found] if isinstance(found, torch.Tensor) else found
    return [leaf.numpy() for leaf in leaves]


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
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        answer = {"error": f"{type(error).__name__}: {lines[0] if lines else 'no sentence'}"}
    print(json.dumps(answer))

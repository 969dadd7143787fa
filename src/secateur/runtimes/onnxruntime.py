"""ONNX Runtime on the CPU, with a fixed number of threads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from secateur.errors import InputError


@dataclass(frozen=True, eq=False)
class Session:
    """A loaded ONNX file; call it with inputs to get the list of outputs.

    inputs, outputs: names in the file's order.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    path: Path
    engine: Any

    def __call__(self, inputs: Any) -> list[np.ndarray]:
        """Run on a dict by input name, or a tensor, tuple or nest of tensors in file order.

        Errors: InputError for other names, another number of inputs, or inputs it cannot run.
        """
        return self.run(self.feed(inputs))

    def feed(self, inputs: Any) -> dict[str, np.ndarray]:
        """The inputs as arrays by name; made once, they can be run many times."""
        if isinstance(inputs, Mapping) and set(inputs) == set(self.inputs):
            values = [inputs[name] for name in self.inputs]
        else:
            leaves = pytree.tree_leaves(inputs)
            values = [x for x in leaves if isinstance(x, torch.Tensor | np.ndarray)]
            named = isinstance(inputs, Mapping) and len(inputs) == len(leaves) == len(values)
            if named or len(values) != len(self.inputs):
                given = ", ".join(map(str, inputs)) if named else f"{len(values)} tensors"
                raise InputError(
                    f"{self.path.name} takes the inputs {', '.join(self.inputs)}; got {given}"
                )
        return {name: _array(x) for name, x in zip(self.inputs, values, strict=True)}

    def run(self, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Run what ``feed`` made. Errors: InputError with the runtime's own sentence."""
        try:
            return self.engine.run(None, feed)
        except Exception as error:  # onnxruntime's errors share no base but this
            shapes = ", ".join(f"{k} {v.dtype} {list(v.shape)}" for k, v in feed.items())
            raise InputError(
                f"ONNX Runtime cannot run {self.path.name} on {shapes}: {_first_line(error)}"
            ) from error


def session(path: str | os.PathLike[str], threads: int = 1) -> Session:
    """Load an ONNX file for the CPU on ``threads`` threads.

    Idle threads sleep instead of spinning, or two sessions that are timed in turn would steal
    time from each other. Errors: InputError for a file that cannot be loaded, less than one
    thread, or a missing package.
    """
    if threads < 1:
        raise InputError(f"threads is {threads}; expected 1 or more")
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    runtime = _package()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        engine = runtime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors share no base but this
        raise InputError(f"ONNX Runtime cannot load {path}: {_first_line(error)}") from error
    return Session(
        tuple(value.name for value in engine.get_inputs()),
        tuple(value.name for value in engine.get_outputs()),
        path,
        engine,
    )


def _package() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"ONNX Runtime cannot be imported ({error}); pip install secateur[onnx]"
        ) from error
    return onnxruntime


def _array(value: torch.Tensor | np.ndarray) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        if value.dtype == torch.bfloat16:
            raise InputError("ONNX Runtime takes no bfloat16 arrays; convert the inputs to float32")
        value = value.numpy()
    return np.ascontiguousarray(value) if value.ndim else value


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]

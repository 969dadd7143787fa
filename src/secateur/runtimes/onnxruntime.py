"""ONNX Runtime on the CPU, with a fixed number of threads."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from secateur.errors import InputError
from secateur.runtimes import check_threads, loads, runtime
from secateur.runtimes._engine import Engine, Feed, first_line

_TYPES = {"float": "float32", "double": "float64"}  # where it spells them otherwise than numpy


@runtime("onnxruntime")
@loads(".onnx", profiles=True, check=lambda: _package())
def session(
    source: str | os.PathLike[str] | bytes,
    threads: int = 1,
    precision: str = "f32",
    profile: bool = False,
) -> Engine:
    """ONNX Runtime on the CPU, for an ONNX file, on ``threads`` threads.

    Idle threads sleep instead of spinning, or two sessions that are timed in turn would steal
    time from each other. Errors: InputError for a file that cannot be loaded, less than one
    thread or more than there are cores, or a missing package.
    """
    check_threads(threads)
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise InputError(f"there is no file {source}")
    package = _package()
    options = package.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    place = tempfile.TemporaryDirectory() if profile else None
    if place is not None:
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(place.name, "steps")
    given = source if isinstance(source, bytes) else os.fspath(source)
    try:
        engine = package.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base but this
        shown = "a layer" if isinstance(source, bytes) else source
        raise InputError(f"ONNX Runtime cannot load {shown}: {first_line(error)}") from error

    def infer(feed: Feed) -> list[np.ndarray]:
        return engine.run(None, feed)

    inputs = engine.get_inputs()
    return Engine(
        "ONNX Runtime",
        "a layer" if isinstance(source, bytes) else Path(source).name,
        tuple(value.name for value in inputs),
        tuple(value.name for value in engine.get_outputs()),
        tuple(tuple(s if isinstance(s, int) else None for s in value.shape) for value in inputs),
        tuple(_numpy_type(value.type) for value in inputs),
        infer,
        engine,
        None if place is None else lambda: _steps(engine, place),
    )


def _steps(engine: Any, place: tempfile.TemporaryDirectory[str]) -> float:
    """Seconds of the nodes, the shortest of each; ends the profile."""
    path = Path(engine.end_profiling())
    events = json.loads(path.read_text(encoding="utf-8"))
    place.cleanup()
    shortest: dict[str, float] = {}
    for event in events:
        name = event.get("name", "")
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        if event["args"].get("op_name", "").startswith("Reorder"):
            continue
        shortest[name] = min(shortest.get(name, float("inf")), float(event["dur"]))
    return 1e-6 * sum(shortest.values())


def _numpy_type(spelled: str) -> str:
    """``tensor(float)`` as ``float32``."""
    inner = spelled.removeprefix("tensor(").removesuffix(")")
    return _TYPES.get(inner, inner)


def _package() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"ONNX Runtime cannot be imported ({error}); pip install secateur[onnx]"
        ) from error
    return onnxruntime

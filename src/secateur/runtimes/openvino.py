"""OpenVINO on the CPU, with threads and precision fixed.

On processors with bfloat16 OpenVINO computes in it by default, whatever the file says; here the
precision is always said.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from secateur.errors import InputError
from secateur.runtimes import check_threads, loads, runtime
from secateur.runtimes._engine import Engine, Feed, first_line

_ORDERING = frozenset({"Reorder", "Parameter", "Result", "Const", "Constant"})


@runtime("openvino")
@loads(".xml", ".onnx", precisions=("f32", "bf16"), profiles=True, check=lambda: openvino_package())
def load_openvino(
    source: str | os.PathLike[str] | bytes,
    threads: int = 1,
    precision: str = "f32",
    profile: bool = False,
) -> Engine:
    """OpenVINO on the CPU, for an OpenVINO IR (.xml beside .bin) or an ONNX file.

    Errors: InputError for a file that cannot be loaded, less than one thread or more than there
    are cores, or a missing package.
    """
    check_threads(threads)
    package = openvino_package()
    core = package.Core()
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise InputError(f"there is no file {source}")
    shown = "a layer" if isinstance(source, bytes) else Path(source).name
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERF_COUNT": profile,
    }
    try:
        given = source if isinstance(source, bytes) else os.fspath(source)
        compiled = core.compile_model(core.read_model(given), "CPU", settings)
    except Exception as error:  # its errors share no base but this
        raise InputError(f"OpenVINO cannot load {shown}: {last_line(error)}") from error
    names = tuple(_name(port, place) for place, port in enumerate(compiled.inputs))
    request = compiled.create_infer_request()

    shortest: dict[str, float] = {}

    def infer(feed: Feed) -> list[np.ndarray]:
        found = request.infer({i: feed[n] for i, n in enumerate(names)}, share_inputs=True)
        if profile:
            _keep_shortest(request.get_profiling_info(), shortest)
        return [np.array(found[port]) for port in compiled.outputs]

    return Engine(
        "OpenVINO",
        shown,
        names,
        tuple(_name(port, place) for place, port in enumerate(compiled.outputs)),
        tuple(_shape(port) for port in compiled.inputs),
        tuple(str(port.element_type.to_dtype()) for port in compiled.inputs),
        infer,
        compiled,
        (lambda: sum(shortest.values())) if profile else None,
    )


def _keep_shortest(steps: Any, shortest: dict[str, float]) -> None:
    for step in steps:
        if step.node_type in _ORDERING:
            continue
        seconds = step.real_time.total_seconds()
        shortest[step.node_name] = min(shortest.get(step.node_name, seconds), seconds)


def _name(port: Any, place: int) -> str:
    return min(port.names) if port.names else str(place)


def _shape(port: Any) -> tuple[int | None, ...]:
    return tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)


def last_line(error: BaseException) -> str:
    """OpenVINO puts the place in its own source first, and the sentence last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else first_line(error)


def openvino_package() -> ModuleType:
    """The package. Errors: InputError where it cannot be imported."""
    try:
        import openvino
    except ImportError as error:
        raise InputError(
            f"OpenVINO cannot be imported ({error}); pip install secateur[openvino]"
        ) from error
    return openvino

"""Import torchvision beside a torch that it was not compiled for (test code only).

torchvision's Python code works with any torch of the same release, but importing it fails where
its compiled operators do not load, as with a CPU build of torch beside the CUDA build of
torchvision, because it registers fake kernels for two operators that then do not exist. It is
enough to define the two: no model of the zoo calls them.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import torch

# The definitions live as long as this object.
_OPERATORS: list[torch.library.Library] = []


@functools.cache
def import_torchvision() -> ModuleType:
    """torchvision; call this before anything that imports it, timm too."""
    if not _compiled_operators_load():
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _OPERATORS.append(library)
    return importlib.import_module("torchvision")


def _compiled_operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("torchvision is not installed; run `make env`")
    libraries = [*Path(spec.origin).parent.glob("_C.*")]
    try:
        for library in libraries:
            torch.ops.load_library(library)
    except OSError:
        return False
    return bool(libraries)

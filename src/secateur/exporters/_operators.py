"""PyTorch's table of ONNX operators, made once in a process.

Its exporter reads 500 functions from their source for every model, which takes longer than to
convert a small one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@contextmanager
def operators_read_once() -> Iterator[None]:
    """``torch.onnx.export`` takes the table that was made before for the same opset.

    Exports only read it; one that registers operators of its own must stay outside. A PyTorch
    that makes its table elsewhere makes it anew.
    """
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:
        yield
        return
    made = vars(ONNXRegistry).get("from_torchlib")
    if not isinstance(made, classmethod):
        yield
        return

    def known(cls: type, *arguments: Any, **keywords: Any) -> Any:
        return _table(made, cls, *arguments, **keywords)

    setattr(ONNXRegistry, "from_torchlib", classmethod(known))  # noqa: B010  (another signature)
    try:
        yield
    finally:
        setattr(ONNXRegistry, "from_torchlib", made)  # noqa: B010


@cache
def _table(made: Any, cls: type, *arguments: Any, **keywords: Any) -> Any:
    return made.__get__(None, cls)(*arguments, **keywords)

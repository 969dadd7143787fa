"""Fourier transforms: the dimensions that they run along stay, the others pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.structure.rules.reduction import bound_arguments
from secateur.structure.tracer import Tracer, rule
from secateur.structure.values import Value, result_shape

aten = torch.ops.aten

_PLANES = frozenset({
    aten.fft_fft2, aten.fft_ifft2, aten.fft_rfft2, aten.fft_irfft2, aten.fft_hfft2, aten.fft_ihfft2,
})  # fmt: skip


@rule(
    aten.fft_fft, aten.fft_ifft, aten.fft_rfft, aten.fft_irfft, aten.fft_hfft, aten.fft_ihfft,
    aten.fft_fftn, aten.fft_ifftn, aten.fft_rfftn, aten.fft_irfftn, aten.fft_hfftn,
    aten.fft_ihfftn, *_PLANES,
)  # fmt: skip
def transform(tracer: Tracer, node: fx.Node, x: Value, *args: Any, **kwargs: Any) -> Value:
    """Linear along some dimensions, the last, the last two or all where none are named."""
    bound = bound_arguments(node)
    operation = node.target.overloadpacket  # type: ignore[union-attr]
    several = operation in _PLANES or str(operation).endswith("n")
    default = list(range(len(x))) if bound.get("s") is None else list(range(-len(bound["s"]), 0))
    if not several:
        default = [-1]
    elif operation in _PLANES:
        default = [-2, -1]
    dims = bound.get("dim")
    dims = default if dims is None else [dims] if isinstance(dims, int) else list(dims)
    along = {int(d) % len(x) for d in dims}
    shape = result_shape(node)
    for d in along:
        tracer.pin(x[d], "a Fourier transform runs along it")
    return Value(np.zeros(shape[d], np.int64) if d in along else ids for d, ids in enumerate(x))

"""Complex numbers: a last dimension of two becomes one number, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from secateur.structure.rules.pointwise import pointwise
from secateur.structure.tracer import Tracer, rule
from secateur.structure.values import Value

aten = torch.ops.aten

rule(aten.complex, aten.polar)(pointwise)


@rule(aten.view_as_complex)
def view_as_complex(tracer: Tracer, node: fx.Node, x: Value) -> Value:
    """[..., 2] to [...]."""
    tracer.pin(x[-1], "it holds the real and the imaginary part")
    return Value(x[:-1])


@rule(aten.view_as_real)
def view_as_real(tracer: Tracer, node: fx.Node, x: Value) -> Value:
    """[...] to [..., 2]."""
    return Value([*x, np.zeros(2, np.int64)])


@rule(
    aten.real, aten.imag, aten.conj, aten._conj, aten.conj_physical, aten.resolve_conj,
    aten.resolve_neg, aten._neg_view,
)  # fmt: skip
def part(tracer: Tracer, node: fx.Node, x: Value, *args: Any) -> Value:
    """Of zero all of these are zero."""
    return x

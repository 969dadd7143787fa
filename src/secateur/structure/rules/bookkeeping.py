"""Nodes that compute nothing: checks, sizes, switches."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from secateur.structure.tracer import Tracer, rule

aten = torch.ops.aten


@rule(
    aten._assert_tensor_metadata, aten.sym_size, aten.sym_numel, aten._assert_scalar,
    aten._assert_async, aten.sym_constrain_range_for_size, aten.sym_constrain_range,
    torch._C._set_grad_enabled, torch.amp.autocast_mode._enter_autocast,
    torch.amp.autocast_mode._exit_autocast,
)  # fmt: skip
def nothing(tracer: Tracer, node: fx.Node, *args: Any, **kwargs: Any) -> None:
    """No tensor comes out."""
    return None

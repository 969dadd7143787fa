"""A deep copy of a model, whatever torch has hung on it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import nn

_Module = TypeVar("_Module", bound=nn.Module)


def copied(model: _Module, memo: Mapping[int, object] | None = None) -> _Module:
    """A deep copy; torch refuses one of a weight that a hook computed in the last forward."""
    known = dict(memo or {})
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                known.setdefault(id(value), value.detach().clone())
    return copy.deepcopy(model, known)

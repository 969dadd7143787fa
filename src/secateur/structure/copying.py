"""A deep copy of a model, whatever torch or the model's own code has hung on it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import nn
from torch.utils import _pytree as pytree

_Module = TypeVar("_Module", bound=nn.Module)
_OF_TORCH = ("_parameters", "_buffers", "_modules")


def copied(model: _Module, memo: Mapping[int, object] | None = None) -> _Module:
    """A deep copy without what eval mode has stored for its next call.

    torch refuses to copy a tensor with a gradient function: a weight that a hook computed in the
    last forward, or what the code keeps of it in a list or dict.
    """
    known = dict(memo or {})
    for module in model.modules():
        own = [value for name, value in vars(module).items() if name not in _OF_TORCH]
        for value in pytree.tree_leaves(own):
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                known.setdefault(id(value), value.detach().clone())
    result = copy.deepcopy(model, known)
    forget_stored(result)
    return result


def forget_stored(model: nn.Module) -> None:
    """Let modules drop what they store in eval mode, which is stale once weights change.

    Some compute a table of biases once and drop it when they are set to train (LeViT); they
    have a ``train`` of their own. All modes stay as they were.
    """
    if all(type(module).train is nn.Module.train for module in model.modules()):
        return
    modes = {module: module.training for module in model.modules()}
    model.train()
    for module, mode in modes.items():
        module.training = mode

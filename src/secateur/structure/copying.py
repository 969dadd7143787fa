"""A deep copy of a model, whatever torch or the model's own code has hung on it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn
from torch.utils import _pytree as pytree

_Module = TypeVar("_Module", bound=nn.Module)
OF_TORCH = ("_parameters", "_buffers", "_modules")


def copied(model: _Module, memo: Mapping[int, object] | None = None) -> _Module:
    """A deep copy without what eval mode has stored for its next call.

    torch refuses to copy a tensor with a gradient function: a weight that a hook computed in the
    last forward, or what the code keeps of it in a list or dict.
    """
    known = dict(memo or {})
    for module in model.modules():
        for value in _stored(module):
            if not value.is_leaf:
                known.setdefault(id(value), value.detach().clone())
    result = copy.deepcopy(model, known)
    forget_stored(result)
    return result


def forget_stored(model: nn.Module) -> None:
    """Let modules drop what they store in eval mode, which is stale once weights change.

    Some compute a table of biases once and drop it when they are set to train (LeViT); they
    have a ``train`` of their own. Others that have one (which merge weights for eval) store no
    tensors and are left alone. All modes stay as they were.
    """
    modes = {module: module.training for module in model.modules()}
    for module, mode in modes.items():
        if type(module).train is not nn.Module.train and _stored(module):
            module.train()
            module.train(mode)
    for module, mode in modes.items():
        module.training = mode


def _stored(module: nn.Module) -> list[torch.Tensor]:
    """Tensors that the code keeps in attributes, lists and dicts, beside those torch knows."""
    own = [value for name, value in vars(module).items() if name not in OF_TORCH]
    return [leaf for leaf in pytree.tree_leaves(own) if isinstance(leaf, torch.Tensor)]


@contextmanager
def buffers_as_traced(model: nn.Module, traced: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """For a while, the buffers of a trace in place of those that a forward pass has replaced.

    Some code grows a table with the inputs and registers it anew (ConViT, tables of rotary
    angles); the trace speaks of the one that was there. Values alone may change. What was
    registered since is away for the while.
    """
    late = {name: buffer for name, buffer in model.named_buffers() if name not in traced}
    replaced = {
        name: buffer
        for name, buffer in model.named_buffers()
        if name in traced and traced[name].shape != buffer.shape
    }
    try:
        for name in replaced:
            _put(model, name, traced[name])
        for name in late:
            _put(model, name, None)
        yield
    finally:
        for name, buffer in (replaced | late).items():
            _put(model, name, buffer)


def _put(model: nn.Module, name: str, buffer: torch.Tensor | None) -> None:
    owner, _, leaf = name.rpartition(".")
    model.get_submodule(owner)._buffers[leaf] = buffer

"""Example inputs: one tensor, a tuple, a dict, or a pair (tuple, dict)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from secateur.errors import InputError

ExampleInputs = torch.Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]


def as_arguments(example_inputs: ExampleInputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a call. Errors: InputError for anything else."""
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        pair = len(example_inputs) == 2 and isinstance(example_inputs[0], (tuple, list))
        if pair and isinstance(example_inputs[1], Mapping):
            return tuple(example_inputs[0]), dict(example_inputs[1])
        return tuple(example_inputs), {}
    raise InputError(
        f"example_inputs is a {type(example_inputs).__name__}; expected a tensor, a tuple, "
        "a dict, or a pair (tuple, dict)"
    )


def map_tensors(function: Callable[[torch.Tensor], torch.Tensor], tree: Any) -> Any:
    """The same tree with ``function`` applied to every tensor."""
    return pytree.tree_map_only(torch.Tensor, function, tree)


def batch_size(arguments: Any) -> int | None:
    """The size of dimension 0 that all tensors of the tree share, or None."""
    sizes = {t.shape[0] for t in pytree.tree_leaves(arguments) if is_batched(t)}
    return sizes.pop() if len(sizes) == 1 else None


def is_batched(leaf: Any) -> bool:
    """Whether a leaf of the inputs is a tensor with a first dimension."""
    return isinstance(leaf, torch.Tensor) and leaf.dim() > 0


def samples_of(example_inputs: ExampleInputs, start: int, stop: int) -> Any:
    """Some of the samples; tensors of another first size than the batch's stay whole."""
    count = batch_size(as_arguments(example_inputs))

    def cut(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[start:stop] if is_batched(tensor) and len(tensor) == count else tensor

    return map_tensors(cut, example_inputs)


def repeated(arguments: Any, size: int) -> Any:
    """A batch of 1 repeated to ``size``; other batches are returned as they are."""
    if batch_size(arguments) != 1:
        return arguments
    return map_tensors(lambda t: t.repeat_interleave(size, 0) if is_batched(t) else t, arguments)

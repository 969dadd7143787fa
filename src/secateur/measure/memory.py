"""Peak memory of an inference.

On the CPU it is accounted: every storage that an operation makes is counted while it lives, so
the number is exact and the same on every run. It holds what PyTorch's tensors hold, with the fused
kernel of nn.TransformerEncoderLayer switched off, which would hide them; scratch space inside a
kernel (im2col, reordered weights) is not seen. On a CUDA device it is measured
with the allocator's own statistics, which see scratch space and round up to blocks.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from secateur.measure.neutral import evaluating, unfused
from secateur.structure.inputs import ExampleInputs, as_arguments, map_tensors
from secateur.surgery.tensors import named_tensors


@dataclass(frozen=True)
class PeakMemory:
    """Bytes at the worst moment of an inference.

    weights:     parameters and buffers. activations: inputs and what the operations made.
    measured:    True on CUDA, False where storages were accounted.
    """

    weights: int
    activations: int
    measured: bool

    @property
    def bytes(self) -> int:
        """Weights and activations together."""
        return self.weights + self.activations


def peak_memory(model: nn.Module, example_inputs: ExampleInputs) -> PeakMemory:
    """Peak memory of one call in eval mode without gradients, at the batch of the inputs."""
    tensors = {id(t): t for t in named_tensors(model).values()}
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors.values()}
    device = next((t.device for t in tensors.values()), torch.device("cpu"))
    weights = sum(storages.values())
    if device.type == "cuda":
        return PeakMemory(weights, _measured_on_cuda(model, example_inputs, device), True)
    return PeakMemory(weights, peak_activation_bytes(model, example_inputs), False)


def peak_activation_bytes(model: nn.Module, example_inputs: ExampleInputs) -> int:
    """Most bytes of inputs, intermediate results and outputs that live at one time.

    The model runs once, on a copy in eval mode without gradients. Views cost nothing, an
    in-place operation nothing further; parameters and buffers are left out.
    """
    copy = evaluating(model)
    args, kwargs = as_arguments(example_inputs)
    ledger = _LiveStorages(list(named_tensors(copy).values()))
    for leaf in pytree.tree_leaves((args, kwargs)):
        if isinstance(leaf, torch.Tensor):
            ledger.see(leaf)
    with torch.no_grad(), unfused(recurrent=False), ledger:
        copy(*args, **kwargs)
    return ledger.peak


class _LiveStorages(TorchDispatchMode):
    """Bytes of the storages that live, and the most there were."""

    def __init__(self, excluded: list[torch.Tensor]) -> None:
        super().__init__()
        self._excluded = {t.untyped_storage()._cdata for t in excluded}
        self._known: dict[int, int] = {}
        self._live = 0
        self.peak = 0

    def see(self, tensor: torch.Tensor) -> None:
        """Count the tensor's storage until it is freed."""
        storage = tensor.untyped_storage()
        identity = storage._cdata
        if identity in self._excluded or identity in self._known:
            return
        self._known[identity] = storage.nbytes()
        self._live += storage.nbytes()
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._forget, identity)

    def _forget(self, identity: int) -> None:
        self._live -= self._known.pop(identity)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.see(leaf)
        return result


def _measured_on_cuda(model: nn.Module, example_inputs: ExampleInputs, device: torch.device) -> int:
    copy = evaluating(model)
    args, kwargs = map_tensors(lambda t: t.to(device), as_arguments(example_inputs))
    inputs = sum(
        t.numel() * t.element_size()
        for t in pytree.tree_leaves((args, kwargs))
        if isinstance(t, torch.Tensor)
    )
    with torch.no_grad():
        copy(*args, **kwargs)  # the first call allocates the libraries' workspaces
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        copy(*args, **kwargs)
        torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before + inputs

"""``count_flops``: matrix products, convolutions and attention; 1 multiply-add is 2 FLOPs.

Counted with the formulas of torch.utils.flop_counter, on a copy without data (meta device), so
nothing is computed. Where a model cannot run there (it makes tensors on a device of its own) a
copy runs on its real device. Two things are switched off while counting, because they hide
products in one fused operation without a formula: the fast path of nn.MultiheadAttention, and
MKL-DNN, which fuses recurrent layers. Point-wise operations, normalisations, look-ups and
reductions are not counted, by convention; what else runs on parameters without a formula is
named in the report.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from secateur.errors import InputError
from secateur.measure.neutral import evaluating, unfused, without_data
from secateur.structure.inputs import ExampleInputs, as_arguments, is_batched, map_tensors
from secateur.surgery.tensors import named_tensors

aten = torch.ops.aten


@dataclass(frozen=True)
class FlopReport:
    """FLOPs of an inference, per sample of the batch.

    by_module: path of the module that owns the weight (or else runs the operation) -> FLOPs;
               the parts add up to the whole, "" is the model itself.
    uncounted: operations that ran on parameters and have no formula; empty is the rule.
    device:    where they were counted, ``meta`` when nothing had to be computed.
    """

    flops: int
    by_module: Mapping[str, int]
    uncounted: tuple[str, ...]
    device: str


def count_flops(model: nn.Module, example_inputs: ExampleInputs) -> FlopReport:
    """Count the FLOPs of ``model`` in eval mode, divided by the batch of the example inputs.

    The batch is the first dimension of the first tensor. The model is untouched.
    Errors: InputError when the model does not run on the example inputs.
    """
    arguments = as_arguments(example_inputs)
    try:
        return _count(without_data(model), map_tensors(_to_meta, arguments), "meta")
    # Any code of the user may fail on tensors without data; the real device is the judge.
    except Exception:
        copy = evaluating(model)
    device = next((t.device for t in named_tensors(copy).values()), torch.device("cpu"))
    try:
        return _count(copy, map_tensors(lambda t: t.to(device), arguments), str(device))
    except Exception as error:
        raise InputError(
            f"the model does not run on the example inputs ({type(error).__name__}: "
            f"{str(error).strip().partition(chr(10))[0]}); check their number, shapes and types"
        ) from error


def _to_meta(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor, device="meta")


def _count(model: nn.Module, arguments: Any, device: str) -> FlopReport:
    args, kwargs = arguments
    counter = _Counter(model)
    with torch.no_grad(), unfused(), counter:
        model(*args, **kwargs)
    batch = next((t.shape[0] for t in pytree.tree_leaves(arguments) if is_batched(t)), 1)
    by_module = {path: round(flops / batch) for path, flops in counter.flops.items()}
    total = round(sum(counter.flops.values()) / batch)
    return FlopReport(total, by_module, tuple(sorted(counter.uncounted)), device)


class _Counter(TorchDispatchMode):
    """Counts while it is entered; follows which module runs and which tensors are parameters."""

    def __init__(self, model: nn.Module) -> None:
        """model: a copy, for hooks are left on it."""
        super().__init__()
        self.flops: dict[str, int] = defaultdict(int)
        self.uncounted: set[str] = set()
        self._running: list[str] = [""]
        # Storages are held, so that the identity of one that died is not taken for another.
        self._owners: dict[int, tuple[str, Any]] = {}
        for name, parameter in model.named_parameters():
            self._own(parameter, name.rpartition(".")[0])
        for path, module in model.named_modules():
            module.register_forward_pre_hook(lambda *_, path=path: self._running.append(path))
            module.register_forward_hook(lambda *_: _discard(self._running), always_call=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        formula = _FORMULAS.get(packet) or flop_registry.get(packet)
        if formula is None and func is not torch.ops.prim.device.default:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        owned = [self._owners.get(t.untyped_storage()._cdata) for t in tensors]
        owners = [owner[0] for owner in owned if owner is not None]
        if formula is not None:
            self.flops[self._place(owners)] += int(formula(*args, **kwargs, out_val=result))
        elif owners and not _is_free(func):
            self.uncounted.add(str(packet))
        if owners and len(owners) == len(tensors):  # made of parameters alone, like W * mask
            for made in pytree.tree_leaves(result):
                if isinstance(made, torch.Tensor):
                    self._own(made, owners[0])
        return result

    def _own(self, tensor: torch.Tensor, path: str) -> None:
        storage = tensor.untyped_storage()
        self._owners.setdefault(storage._cdata, (path, storage))

    def _place(self, owners: list[str]) -> str:
        """The owner of the weight where it lies inside the running module, else that module."""
        running = self._running[-1]
        inside = f"{running}." if running else ""
        return next((path for path in owners if path.startswith(inside)), running)


def _discard(stack: list[str]) -> None:
    stack.pop()  # a hook that returned the popped path would replace the module's output


def _is_free(func: Any) -> bool:
    """Not counted by convention: views, point-wise operations, and what ``_FREE`` lists."""
    return func.is_view or torch.Tag.pointwise in func.tags or func._overloadpacket in _FREE


def _product_flops(
    query: Any, key: Any, value: Any, *rest: Any, out_val: Any = None, **others: Any
) -> int:
    """Attention of query [..., n, d], key [..., m, d], value [..., m, v]."""
    return 2 * math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _contraction(position: int) -> Callable[..., int]:
    """A product whose argument ``position`` is contracted over its last dimension."""

    def flops(*args: Any, out_val: Any, **others: Any) -> int:
        return 2 * args[position].shape[-1] * out_val.numel()

    return flops


def _added_batches(
    _: Any, left: Any, right: Any, *rest: Any, out_val: Any = None, **others: Any
) -> int:
    return 2 * left.numel() * right.shape[-1]


def _distances(left: Any, right: Any, *rest: Any, out_val: Any, **others: Any) -> int:
    return 2 * left.shape[-1] * out_val.numel()


# Products that torch's own table lacks.
_FORMULAS: dict[Any, Callable[..., int]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _product_flops,
    aten.dot: _contraction(0),
    aten.vdot: _contraction(0),
    aten.mv: _contraction(0),
    aten.addmv: _contraction(1),
    aten.addbmm: _added_batches,
    aten._cdist_forward: _distances,
    aten._euclidean_dist: _distances,
}

# Look-ups, norms, reductions and data movement whose operations carry no tag that says so.
_FREE = {
    aten.embedding, aten._embedding_bag, aten._embedding_bag_forward_only, aten.gather,
    aten.index, aten.index_select, aten.index_put, aten.index_put_, aten.scatter, aten.take,
    aten.native_batch_norm, aten._native_batch_norm_legit, aten.cudnn_batch_norm,
    aten._native_batch_norm_legit_no_training, aten.miopen_batch_norm, aten.batch_norm_elemt,
    aten._batch_norm_no_update, aten._batch_norm_with_update,
    aten.native_layer_norm, aten.native_group_norm, aten._fused_rms_norm, aten._prelu_kernel,
    aten._weight_norm_interface, aten.linalg_vector_norm, aten.norm, aten.sum, aten.mean,
    aten.var, aten.var_mean, aten.std, aten.std_mean, aten.amax, aten.amin, aten.max, aten.min,
    aten.prod, aten.cumsum, aten.logsumexp, aten._softmax, aten._log_softmax, aten.argmax,
    aten.cat, aten.stack, aten.clone, aten.copy, aten.copy_, aten._to_copy, aten.repeat,
    aten.repeat_interleave, aten.roll, aten.flip, aten.constant_pad_nd, aten.tril, aten.triu,
    aten.contiguous, aten._unsafe_view, aten._reshape_copy, aten.unfold_copy, aten.fill_,
    aten.zeros_like, aten.ones_like, aten.empty_like, aten.full_like, aten.new_zeros,
    aten.new_ones, aten.new_empty, aten.new_full, aten.upsample_bilinear2d,
    aten.upsample_nearest2d, aten.upsample_bicubic2d, aten._upsample_bilinear2d_aa,
    aten._upsample_bicubic2d_aa, aten.grid_sampler_2d, aten._local_scalar_dense, aten.detach,
    aten.is_nonzero, aten.equal, aten.topk, aten.sort, aten.split_with_sizes_copy,
}  # fmt: skip

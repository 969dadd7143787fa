"""What the dense model computes with the removed slices set to zero.

The captured graph is run node by node on zeroed tensors. Where a statistic runs across removed
units, the node runs on the survivors and its result is put back among zeros.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from secateur.structure.boundary import flat_outputs
from secateur.structure.constants import is_mutating, may_copy
from secateur.structure.copying import OF_TORCH, copied
from secateur.structure.structure import Removal, Structure
from secateur.structure.values import Value
from secateur.surgery.rewriting import rewrite, survivors

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_COMPLEX = (torch.complex64, torch.complex32)


class InDouble(TorchDispatchMode):
    """Every float type that code asks for, by name or by default, becomes float64.

    Every complex type becomes complex128.
    """

    def __enter__(self) -> InDouble:
        self._default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        torch.set_default_dtype(self._default)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def widen(leaf: Any) -> Any:
            if isinstance(leaf, torch.dtype) and leaf in _FLOATS + _COMPLEX:
                return torch.float64 if leaf in _FLOATS else torch.complex128
            return leaf

        if func is torch.ops.aten._grouped_mm.default and args[0].dtype == torch.float64:
            return _grouped_product(*args, **(kwargs or {}))
        named = {name: widen(value) for name, value in (kwargs or {}).items()}
        return func(*(widen(value) for value in args), **named)


def _grouped_product(
    x: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor, *rest: Any, **named: Any
) -> torch.Tensor:
    """Rows of x [rows, in] by the matrix of their expert [experts, in, out]; torch has none in
    float64. ends: where the rows of each expert end."""
    parts, start = [], 0
    for expert, end in enumerate(ends.tolist()):
        parts.append(x[start:end] @ weight[expert])
        start = end
    parts.append(x.new_zeros(len(x) - start, weight.shape[2]))
    return torch.cat(parts)


def double(tree: Any) -> Any:
    """The tree with every float tensor in float64, and every complex one in complex128."""

    def wide(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_complex():
            return tensor.to(torch.complex128)
        return tensor.double() if tensor.is_floating_point() else tensor

    return pytree.tree_map_only(torch.Tensor, wide, tree)


@contextmanager
def same_draws() -> Iterator[None]:
    """Random numbers of forward are the same in every run within such a block."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def widened(model: nn.Module) -> nn.Module:
    """A copy in eval mode and in float64, with the tensors that are plain attributes of modules."""
    result = copied(model)._apply(double).eval()
    for module in result.modules():
        for name, value in list(vars(module).items()):
            held = pytree.tree_leaves(value) if name not in OF_TORCH else []
            if any(isinstance(leaf, torch.Tensor) for leaf in held):
                vars(module)[name] = double(value)
    return result


class ZeroedReference(fx.Interpreter):
    """Run the captured eval graph with the removed slices of all tensors at zero.

    wide: in float64; otherwise in the types of the tensors.
    """

    def __init__(
        self,
        structure: Structure,
        remove: Removal,
        tensors: Mapping[str, torch.Tensor],
        wide: bool = True,
    ) -> None:
        super().__init__(structure.captured.module, garbage_collect_values=True)
        self.extra_traceback = False  # it writes into messages, and ours say what is wrong
        self.structure, self.wide = structure, wide
        self.gone = structure.gone(remove)[structure.solution.labels]
        self.drop = structure.dropped(remove)
        self.rewritten = rewrite(structure, structure.captured, self.gone)
        self.adapted = {
            entry.node
            for entry in structure.tracer.adapted
            if self.gone[entry.ids].any() and entry.node.graph is structure.captured.module.graph
        }
        self.losing: dict[fx.Node, bool] = {}
        self.zeroed = {
            name: self._zero(name, tensor)
            for name, tensor in {**_tensors(structure.captured.module), **tensors}.items()
        }

    def _zero(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        name = self.structure.aliases.get(name, name)
        value = self.structure.tracer.tensors.get(name)
        tensor = tensor.detach().clone()
        tensor = double(tensor) if self.wide else tensor
        for dim, ids in enumerate(value or ()):
            lost = self.gone[np.abs(ids)]
            if lost.any():
                tensor.index_fill_(dim, torch.from_numpy(np.flatnonzero(lost)), 0)
        return tensor

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Zeroed tensors in place of the model's."""
        if target in self.zeroed:
            return self.zeroed[target]
        value = super().get_attr(target, args, kwargs)  # what forward made, or a plain attribute
        return double(value) if self.wide else value

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Inputs of which something leaves at zero there."""
        tensor, node = super().placeholder(target, args, kwargs), self.running
        value = self.structure.tracer.values.get(node)
        if isinstance(tensor, torch.Tensor) and isinstance(value, Value):
            for dim, ids in enumerate(value):
                lost = np.flatnonzero(self.gone[np.abs(ids)])
                if len(lost):
                    tensor = tensor.index_fill(dim, torch.from_numpy(lost), 0)
        return tensor

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Views may copy: what was put back among zeros lies otherwise than in the dense run."""
        if target is torch.ops.aten.view.default and may_copy(self.running):
            target = torch.ops.aten.reshape.default
        return super().call_function(target, args, kwargs)

    def run_node(self, n: fx.Node) -> Any:
        """Adapted nodes on survivors, all others as they are."""
        self.running = n
        if n.target is torch.ops.aten._assert_tensor_metadata.default or n in self.drop.nodes:
            return None
        if n in self.drop.joins:  # the branch answers zero
            kept = self.env[self.drop.joins[n]]
            return kept + torch.zeros_like(kept)
        if n in self.adapted or self._draws_fewer(n):
            return self._on_survivors(n)
        result, value = super().run_node(n), self.structure.tracer.values.get(n)
        if isinstance(result, torch.Tensor) and isinstance(value, Value) and self._loses(n):
            return self._without_empty_quotients(result, value)
        return result

    def _draws_fewer(self, node: fx.Node) -> bool:
        """Whether it makes random numbers, of which the pruned model makes fewer."""
        tags = getattr(node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded not in tags or is_mutating(node):
            return False
        value = self.structure.tracer.values.get(node)
        return isinstance(value, Value) and self._loses(node)

    def _loses(self, node: fx.Node) -> bool:
        """Whether some index of its result left."""
        if node not in self.losing:
            ids = self.structure.tracer.values[node]
            self.losing[node] = any(self.gone[np.abs(along)].any() for along in ids)
        return self.losing[node]

    def _without_empty_quotients(self, tensor: torch.Tensor, value: Value) -> torch.Tensor:
        """What was divided by zero where an index left is nothing: no survivor reads it."""
        if not tensor.is_floating_point() or math.isfinite(float(tensor.detach().sum())):
            return tensor
        # A sum that only runs over comes here as well: no element of it is changed.
        for dim, ids in enumerate(value):
            lost = self.gone[np.abs(ids)]
            if lost.any() and len(ids) == tensor.shape[dim]:
                index = torch.from_numpy(np.flatnonzero(lost))
                part = tensor.index_select(dim, index)
                tensor = tensor.index_copy(dim, index, part.masked_fill(~part.isfinite(), 0))
        return tensor

    def _on_survivors(self, node: fx.Node) -> Any:
        new = self.rewritten.nodes[node]
        values = self.structure.tracer.values
        back: dict[fx.Node, Any] = {}
        for operand, copy in zip(node.all_input_nodes, new.all_input_nodes, strict=False):
            tensor, value = self.env[operand], values.get(operand)
            if isinstance(tensor, torch.Tensor) and isinstance(value, Value):
                for dim, index in enumerate(survivors(value, self.gone)):
                    if len(index) < tensor.shape[dim] and len(value[dim]) == tensor.shape[dim]:
                        tensor = tensor.index_select(dim, torch.from_numpy(index))
            back[copy] = tensor
        args = fx.map_arg(new.args, lambda n: back[n])
        kwargs = fx.map_arg(new.kwargs, lambda n: back[n])
        assert callable(new.target)
        result = new.target(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            return self._among_zeros(self._dense_places(node, None, result), values[node])
        return type(result)(
            self._among_zeros(self._dense_places(node, number, part), value)
            if isinstance(part, torch.Tensor) else part
            for number, (part, value) in enumerate(zip(result, values[node], strict=True))
        )  # fmt: skip

    def _dense_places(self, node: fx.Node, part: int | None, result: torch.Tensor) -> torch.Tensor:
        """Places among survivors as places among all."""
        known = self.structure.tracer.positions.get(node)
        if known is None or known.part != part:
            return result
        return torch.from_numpy(np.flatnonzero(~self.gone[known.ids]))[result]

    def _among_zeros(self, tensor: torch.Tensor, value: Value) -> torch.Tensor:
        for dim, index in enumerate(survivors(value, self.gone)):
            size = len(value[dim])
            if len(index) < size:
                shape = [*tensor.shape[:dim], size, *tensor.shape[dim + 1 :]]
                full = tensor.new_zeros(shape)
                tensor = full.index_copy(dim, torch.from_numpy(index), tensor)
        return tensor


def zeroed_outputs(
    model: torch.nn.Module, structure: Structure, remove: Removal, arguments: Any
) -> list[torch.Tensor]:
    """Flat outputs of the zeroed dense model in float64; ``arguments`` is (args, kwargs)."""
    flat = pytree.tree_leaves(double(arguments))
    reference = ZeroedReference(structure, remove, _tensors(model))
    with torch.no_grad(), InDouble(), same_draws():
        output = fx.Interpreter.run(reference, *flat, enable_io_processing=False)
    return [t for t in pytree.tree_leaves(output) if isinstance(t, torch.Tensor)]


def surviving(
    structure: Structure, remove: Removal, outputs: list[torch.Tensor]
) -> list[torch.Tensor]:
    """Flat outputs of the dense model without what leaves: of caches, and of a free boundary."""
    gone = structure.gone(remove)[structure.solution.labels]
    result = []
    for (node, _), tensor in zip(tensor_outputs(structure), outputs, strict=True):
        value = structure.tracer.values.get(node)
        if isinstance(value, Value):
            for dim, index in enumerate(survivors(value, gone)):
                if len(index) < tensor.shape[dim] and len(value[dim]) == tensor.shape[dim]:
                    tensor = tensor.index_select(dim, torch.from_numpy(index))
        result.append(tensor)
    return result


def tensor_outputs(structure: Structure) -> list[tuple[fx.Node, bool]]:
    """Node of every flat output that is a tensor, and whether it lies in a cache."""
    captured = structure.captured
    return [
        (node, in_cache)
        for node, in_cache in zip(flat_outputs(captured.module.graph), captured.caches, strict=True)
        if isinstance(node, fx.Node) and isinstance(node.meta.get("val"), torch.Tensor)
    ]


def _tensors(module: torch.nn.Module) -> Mapping[str, torch.Tensor]:
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }

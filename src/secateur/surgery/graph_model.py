"""A model that is a pruned graph: trains, takes any batch, holds its tensors by their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.fx.graph import CodeGen
from torch.utils import _pytree as pytree

from secateur.structure.caches import known_caches
from secateur.structure.constants import may_copy


@dataclass(frozen=True, eq=False)
class Program:
    """A graph over flat inputs and outputs with its compiled function.

    in_spec, out_spec: pytree specs of (args, kwargs) and of the result.
    """

    graph: fx.Graph
    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec
    function: Any

    @staticmethod
    def of(graph: fx.Graph, in_spec: pytree.TreeSpec, out_spec: pytree.TreeSpec) -> Program:
        """Compile a graph whose placeholders are the flat inputs."""
        _let_views_copy(graph)
        graph.set_codegen(CodeGen())
        code = graph.python_code("self")
        names: dict[str, Any] = dict(code.globals)
        exec(compile(code.src, "<secateur graph>", "exec"), names)
        return Program(graph, in_spec, out_spec, names["forward"])

    def on(self, device: torch.device) -> Program:
        """The same program with every tensor that it makes on another device."""

        def moved(leaf: Any) -> Any:
            return device if isinstance(leaf, torch.device) else leaf

        graph = fx.Graph()
        nodes: dict[fx.Node, Any] = {}
        graph.output(graph.graph_copy(self.graph, nodes))
        for node in graph.nodes:
            node.args = pytree.tree_map(moved, node.args)
            node.kwargs = pytree.tree_map(moved, node.kwargs)
        return Program.of(graph, self.in_spec, self.out_spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return self  # a program holds no tensors and is never changed

    def run(self, holder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the graph with the tensors of ``holder``."""
        names = _keyword_names(self.in_spec)
        if set(names) == set(kwargs):
            kwargs = {name: kwargs[name] for name in names}
        flat, spec = pytree.tree_flatten((args, kwargs))
        if len(flat) != self.in_spec.num_leaves:
            raise TypeError(
                f"this graph was captured with {self.in_spec.num_leaves} input leaves, "
                f"got {len(flat)} ({spec})"
            )
        answers = self.function(holder, *flat)
        with known_caches():
            return pytree.tree_unflatten(answers, self.out_spec)


def _let_views_copy(graph: fx.Graph) -> None:
    """A view becomes a reshape where nobody writes into it: fewer units may lie otherwise.

    A tensor of one row has strides that a view accepts and one of two rows may have others;
    and what selects survivors lays them out anew.
    """
    for node in graph.nodes:
        if node.target is torch.ops.aten.view.default and may_copy(node):
            node.target = torch.ops.aten.reshape.default


def _keyword_names(spec: pytree.TreeSpec) -> list[str]:
    keywords = spec.children()[1] if spec.num_children == 2 else None
    return list(keywords.context) if keywords is not None and keywords.context else []


class GraphModel(nn.Module):
    """A pruned model made by graph surgery.

    ``train()`` and ``eval()`` switch between two graphs over the same parameters; where only
    the eval graph could be captured, dropout and batch statistics stay off in train mode and
    ``notes`` says so.
    """

    def __init__(
        self,
        programs: Mapping[bool, Program],
        tensors: Mapping[str, nn.Parameter | torch.Tensor],
        transient: Iterable[str] = (),
        notes: tuple[str, ...] = (),
    ) -> None:
        """programs: by ``training``; tensors: parameters and buffers by dotted name;
        transient: names of buffers that the dense model keeps out of its state dict."""
        super().__init__()
        self.programs = dict(programs)
        self.notes = notes
        transient = frozenset(transient)
        for name, tensor in tensors.items():
            owner, _, leaf = name.rpartition(".")
            holder = _holder(self, owner)
            if isinstance(tensor, nn.Parameter):
                holder.register_parameter(leaf, tensor)
            else:
                holder.register_buffer(leaf, tensor, persistent=name not in transient)
        self.train(not programs.get(False))

    def _apply(self, fn: Any, recurse: bool = True) -> GraphModel:
        """Besides the tensors, move what the graphs make by themselves."""
        before = _device_of(self)
        super()._apply(fn, recurse)
        after = _device_of(self)
        if after != before and after is not None:
            self.programs = {mode: program.on(after) for mode, program in self.programs.items()}
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The dense model's call, on fewer units."""
        program = self.programs.get(self.training) or self.programs[not self.training]
        return program.run(self, args, kwargs)


def _device_of(model: nn.Module) -> torch.device | None:
    return next((tensor.device for tensor in model.parameters()), None)


def _holder(root: nn.Module, path: str) -> nn.Module:
    for part in path.split(".") if path else []:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        child = root._modules[part]
        assert child is not None
        root = child
    return root


def flat_specs(module: fx.GraphModule) -> tuple[pytree.TreeSpec, pytree.TreeSpec]:
    """The pytree specs of a captured module's inputs and outputs."""
    info = module.graph._codegen.pytree_info  # type: ignore[union-attr]
    out_spec = info.out_spec
    assert out_spec is not None
    return info.in_spec, out_spec

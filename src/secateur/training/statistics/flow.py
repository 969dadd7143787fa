"""Synaptic flow: what every weight carries from an input of ones, in absolute values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from secateur.structure.structure import Structure
from secateur.surgery.reference import InDouble, ZeroedReference, double
from secateur.surgery.tensors import named_tensors
from secateur.training.statistics.passes import Source

aten = torch.ops.aten
KINDS = frozenset({"flow"})


def flow(source: Source, needs: frozenset[str]) -> dict[str, Any]:
    """|w * dR/dw| by name, R the sum of all outputs for one sample of ones: float64.

    The captured graph runs on absolute values of all parameters, with running means of 0 and
    variances as they are, so that in a net of linear maps, batch norms and ReLUs R is positive and
    homogeneous in each layer. Inputs of whole numbers stay those that the model was traced with.
    """
    structure = source.structure
    means = _running_means(structure)
    tensors: dict[str, Tensor] = {}
    leaves: dict[str, Tensor] = {}
    for name, tensor in named_tensors(source.model).items():
        canonical = structure.aliases.get(name, name)
        value = double(tensor.detach())
        if canonical in structure.tracer.buffers:
            tensors[name] = torch.zeros_like(value) if canonical in means else value
        else:
            fresh = value.abs() if value.is_floating_point() else value
            tensors[name] = leaves.setdefault(canonical, fresh)
    reference = ZeroedReference(structure, {}, tensors)
    for name in reference.zeroed:
        canonical = structure.aliases.get(name, name)
        if canonical in leaves and leaves[canonical].is_floating_point():
            reference.zeroed[name] = leaves[canonical].requires_grad_()
    arguments = pytree.tree_map_only(torch.Tensor, _ones, structure.captured.arguments)
    flat = [leaf.to(source.device) if isinstance(leaf, Tensor) else leaf
            for leaf in pytree.tree_leaves(arguments)]  # fmt: skip
    with torch.enable_grad(), InDouble():
        answer = fx.Interpreter.run(reference, *flat, enable_io_processing=False)
        outputs = [
            leaf
            for leaf in pytree.tree_leaves(answer)
            if isinstance(leaf, Tensor) and leaf.requires_grad
        ]
        wanted = {n: t for n, t in leaves.items() if n in source.parameters and t.requires_grad}
        if not outputs:
            return {"flow": {name: torch.zeros_like(t).cpu() for name, t in wanted.items()}}
        total = sum((output.sum() for output in outputs), torch.zeros((), device=source.device))
        found = torch.autograd.grad(total, [*wanted.values()], allow_unused=True)
    batch = max(1, structure.captured.batch)
    scores = {}
    for (name, weight), gradient in zip(wanted.items(), found, strict=True):
        change = torch.zeros_like(weight) if gradient is None else gradient
        scores[name] = (weight.detach() * change).abs().cpu() / batch
    return {"flow": scores}


def _ones(leaf: Tensor) -> Tensor:
    return torch.ones_like(leaf, dtype=torch.float64) if leaf.is_floating_point() else leaf


def _running_means(structure: Structure) -> set[str]:
    """Buffers that a batch norm subtracts, by canonical name."""
    found = set()
    for node in structure.captured.module.graph.nodes:
        if node.target is aten.batch_norm.default and isinstance(node.args[3], fx.Node):
            name = str(node.args[3].target)
            found.add(structure.aliases.get(name, name))
    return found

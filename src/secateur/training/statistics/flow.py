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

KINDS = frozenset({"flow"})
SMALL = 1e-30


def flow(source: Source, needs: frozenset[str]) -> dict[str, Any]:
    """|w * dR/dw| by name, R the sum of all outputs for one sample of ones: float64.

    The captured graph runs on absolute values of all parameters, with biases and running means of
    0, so that in a net of linear maps, batch norms and ReLUs R is positive and homogeneous in each
    layer. The ones are made so small that bounded activation functions are at their slope at 0, and
    R is scaled back. Inputs of whole numbers stay those that the model was traced with.
    """
    structure = source.structure
    shifts = _shifts(structure)
    tensors: dict[str, Tensor] = {}
    leaves: dict[str, Tensor] = {}
    for name, tensor in named_tensors(source.model).items():
        canonical = structure.aliases.get(name, name)
        value = double(tensor.detach())
        value = torch.zeros_like(value) if canonical in shifts else value
        if canonical in structure.tracer.buffers:
            tensors[name] = value
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
        scores[name] = (weight.detach() * change).abs().cpu() / (batch * SMALL)
    return {"flow": scores}


def _ones(leaf: Tensor) -> Tensor:
    if not leaf.is_floating_point():
        return leaf
    return torch.full_like(leaf, SMALL, dtype=torch.float64)


def _shifts(structure: Structure) -> set[str]:
    """What operations add to their results by themselves, or subtract: canonical names."""
    found = set()
    for node in structure.captured.module.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        names = [argument.name for argument in schema.arguments] if schema is not None else []
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        for key in ("bias", "running_mean"):
            operand = given.get(key)
            if isinstance(operand, fx.Node) and operand.op == "get_attr":
                name = str(operand.target)
                found.add(structure.aliases.get(name, name))
    return found

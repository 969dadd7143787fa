"""Gradients of single samples, one backward pass each: squares, products with units, or all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from secateur.protocols import UnitGroup
from secateur.structure.inputs import as_arguments, batch_size, map_tensors, samples_of
from secateur.training.loading import move
from secateur.training.statistics.gradients import stored
from secateur.training.statistics.passes import Source, loss_of, no_batch, undisturbed

KINDS = frozenset({"squares", "samples", "products"})


def per_sample(source: Source, needs: frozenset[str]) -> dict[str, Any]:
    """``squares``, ``samples`` and ``products`` of ``Statistics``, in float64, on the CPU.

    The loss is called with batches of one. Of ``samples`` as many are kept as fit into memory, one
    at least, from the front; the others count all of them.
    """
    parameters = source.parameters
    size = 8 * sum(parameter.numel() for parameter in parameters.values())
    room = max(1, source.memory // max(size, 1))
    weights = {name: p.detach().cpu().double() for name, p in parameters.items()}
    gates = {group.name: along(group) for group in source.structure.groups}
    squared = parameters if "squares" in needs else {}
    squares = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in squared.items()}
    samples: dict[str, list[Tensor]] = {name: [] for name in parameters}
    products: dict[str, list[Tensor]] = {name: [] for name in gates}
    number = -1
    with undisturbed(source.model, source.device):
        for number, (inputs, targets) in enumerate(_singles(source)):
            value = loss_of(source, inputs, targets, number, "sample")
            found = torch.autograd.grad(value, [*parameters.values()], allow_unused=True)
            gradients = {
                name: stored(gradient, parameter).double()
                for (name, parameter), gradient in zip(parameters.items(), found, strict=True)
            }
            for name, gradient in gradients.items():
                if name in squares:
                    squares[name] += gradient.square()
                if "samples" in needs and number < room:
                    samples[name].append(gradient)
            if "products" in needs:
                slopes = {name: weights[name] * gradients[name] for name in gradients}
                for name, layers in gates.items():
                    products[name].append(derivative(layers, slopes))
            if needs == {"samples"} and number + 1 >= room:
                break
    if number < 0:
        raise no_batch()
    result: dict[str, Any] = {
        "squares": {name: total / (number + 1) for name, total in squares.items()},
        "samples": {name: torch.stack(some) for name, some in samples.items() if some},
        "products": {name: torch.stack(some) for name, some in products.items() if some},
    }
    return {kind: found for kind, found in result.items() if kind in needs}


Gate = list[tuple[str, int, Tensor]]  # tensor, dimension, indices [units, k]


def along(group: UnitGroup) -> list[Gate]:
    """Where a factor on each unit acts: on all that reads it by a weight, as one; where nothing
    does, on what produces it, layer by layer."""
    inward = [m for m in group.members if m.role == "in"]
    if inward:
        return [[(m.tensor, m.dim, torch.as_tensor(m.index)) for m in inward]]
    outward = [m for m in group.members if m.role == "out"]
    by_layer: dict[str, Gate] = {}
    for member in outward or [m for m in group.members if m.role == "affine"]:
        layer = member.tensor.rpartition(".")[0]
        place = (member.tensor, member.dim, torch.as_tensor(member.index))
        by_layer.setdefault(layer, []).append(place)
    return [*by_layer.values()]


def derivative(layers: list[Gate], slopes: Mapping[str, Tensor]) -> Tensor:
    """Sum of weight * gradient over each unit, layers that produce it averaged: [units]."""
    total = torch.zeros((), dtype=torch.float64)
    for layer in layers:
        for tensor, dim, index in layer:
            slope = slopes[tensor].movedim(dim, 0)
            along_dim = slope.reshape(len(slope), -1).sum(1)
            total = total + along_dim[index].sum(1) / len(layers)
    return total


def _singles(source: Source) -> Iterator[tuple[Any, Any]]:
    """Every sample as a batch of one."""
    for inputs, targets in source.batches:
        inputs, targets = move(inputs, source.device), move(targets, source.device)
        count = batch_size(as_arguments(inputs)) or 1
        for place in range(count):

            def one(tensor: Tensor, place: int = place, count: int = count) -> Tensor:
                return (
                    tensor[place : place + 1] if tensor.dim() and len(tensor) == count else tensor
                )

            single = (
                one(inputs) if isinstance(inputs, Tensor) else samples_of(inputs, place, place + 1)
            )
            yield single, map_tensors(one, targets)

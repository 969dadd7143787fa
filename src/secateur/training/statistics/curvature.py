"""The Hessian of the loss times its gradient, for GraSP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from secateur.errors import InputError
from secateur.training.loading import move
from secateur.training.statistics.passes import Source, loss_of, no_batch, undisturbed

KINDS = frozenset({"curvature"})


def curvature(source: Source, needs: frozenset[str]) -> dict[str, Any]:
    """H g of the mean loss L over all batches, by name: d/dw of <g, dL/dw> with g held.

    Two passes: the gradient of all batches first. Fused operations that cannot be differentiated
    twice are taken apart.
    """
    parameters = [*source.parameters.values()]
    total = [torch.zeros_like(parameter) for parameter in parameters]
    result = [torch.zeros_like(parameter) for parameter in parameters]
    count = 0
    with undisturbed(source.model, source.device), sdpa_kernel(SDPBackend.MATH):
        for number, (inputs, targets) in enumerate(source.batches):
            inputs, targets = move(inputs, source.device), move(targets, source.device)
            value = loss_of(source, inputs, targets, number)
            found = torch.autograd.grad(value, parameters, allow_unused=True)
            for mean, gradient in zip(total, found, strict=True):
                if gradient is not None:
                    mean += gradient
            count = number + 1
        if not count:
            raise no_batch()
        for number, (inputs, targets) in enumerate(source.batches):
            inputs, targets = move(inputs, source.device), move(targets, source.device)
            value = loss_of(source, inputs, targets, number)
            found = torch.autograd.grad(value, parameters, create_graph=True, allow_unused=True)
            pairs = [
                (gradient * mean / count).sum()
                for gradient, mean in zip(found, total, strict=True)
                if gradient is not None and gradient.requires_grad
            ]
            if not pairs:
                continue
            again = _differentiated(torch.stack(pairs).sum(), parameters)
            for mean, product in zip(result, again, strict=True):
                if product is not None:
                    mean += product / count
    return {"curvature": {n: r.cpu() for n, r in zip(source.parameters, result, strict=True)}}


def _differentiated(value: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
    try:
        return torch.autograd.grad(value, parameters, allow_unused=True)
    except RuntimeError as error:
        if "derivative for" not in str(error):
            raise
        raise InputError(
            "the Hessian asks for second derivatives, and PyTorch has none of an operation of this "
            f"model ({str(error).splitlines()[0]}); take a criterion of gradients, such as 'snip'"
        ) from error

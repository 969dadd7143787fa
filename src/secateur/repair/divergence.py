"""How far the answers of one network are from those of another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from secateur.repair.likelihood import class_dim


def divergences(
    wanted: Sequence[Sequence[Tensor]], answers: Sequence[Sequence[Tensor]], classes: int | None
) -> Tensor:
    """float64 [samples]: the loss of answering so instead of as wanted; 0 for the same answers.

    wanted, answers: tensors of every batch [samples, ...]. Logits (an output with a dimension of
    ``classes``) by the Kullback-Leibler divergence in nats, other floats by their squared error
    relative to the variance of what is wanted. Outputs of one model are added.
    """
    found = []
    for right, given in zip(wanted, answers, strict=True):
        terms = [
            _between(a.double(), b.double(), classes)
            for a, b in zip(right, given, strict=True)
            if a.is_floating_point() and a.shape == b.shape and a.numel()
        ]
        if terms:
            found.append(torch.stack(terms).sum(0))
    return torch.cat(found) if found else torch.zeros(1, dtype=torch.float64)


def _between(a: Tensor, b: Tensor, classes: int | None) -> Tensor:
    if not a.dim():
        a, b = a[None], b[None]
    dim = class_dim(a, classes)
    if dim is None:
        scale = a.var().clamp_min(1e-24) if a.numel() > 1 else torch.ones(())
        return (a - b).square().flatten(1).mean(1) / scale if a.dim() > 1 else (a - b) ** 2 / scale
    log_a, log_b = a.log_softmax(dim), b.log_softmax(dim)
    terms = (log_a.exp() * (log_a - log_b)).sum(dim)
    return terms.flatten(1).mean(1) if terms.dim() > 1 else terms

"""Gradients by ``backward``, sample by sample and batch by batch, and a net of few weights."""

from __future__ import annotations

import copy
from functools import cache

import torch
from torch import nn
from torch.nn import functional

import secateur as sc
from criterion_cases import (
    case,
    loss,
)
from oracle import call, randomise


def gradients_of(model, inputs, targets) -> dict[str, torch.Tensor]:
    """By ``backward``, on a copy."""
    model = copy.deepcopy(model)
    loss(call(model, inputs), targets).backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in model.named_parameters()
    }


@cache
def all_batches(net: str) -> list[dict[str, torch.Tensor]]:
    return [gradients_of(case(net).model, *batch) for batch in case(net).batches]


@cache
def each_sample(net: str) -> list[dict[str, torch.Tensor]]:
    found = []
    for inputs, targets in case(net).batches:
        for i in range(len(targets)):
            one = tuple(x[i : i + 1] for x in inputs)
            found.append(gradients_of(case(net).model, one, targets[i : i + 1]))
    return found


def net_of(statistics, nets) -> str:
    return next(n for n in nets if case(n).statistics is statistics)


def small(hidden: int = 3):
    """A net of few weights in float64, and labelled batches."""
    model = randomise(nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 3)), 0)
    draw = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(5, 4, generator=draw).double(), torch.randint(0, 3, (5,), generator=draw))
        for _ in range(2)
    ]
    return model, sc.trace(model, batches[0][0]), batches


def total_loss(model, batches) -> torch.Tensor:
    losses = [functional.cross_entropy(model(inputs), targets) for inputs, targets in batches]
    return torch.stack(losses).mean()

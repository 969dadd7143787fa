"""Structures and scores that policies are tried on."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn
from torch.nn import functional

import secateur as sc
from secateur.config import UNBUDGETED
from secateur.policies import POLICIES, Request
from secateur.quantities import Quantity
from zoo import ZOO

BUDGETED = tuple(name for name in POLICIES.names() if name not in UNBUDGETED)

# Residuals, concatenation, crossing groups of attention, grouped convolutions, flatten.
NETS = ("conv_flatten", "basic_blocks", "dense_block", "packed_attention", "resnext", "swiglu")


class Attention(nn.Module):
    """6 heads of 12, wide enough that multiples of 8 can be told from chance."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(10, 72) for _ in range(3))
        self.out = nn.Linear(72, 24)
        self.head = nn.Linear(24, 3)

    def forward(self, x):
        parts = (layer(x).unflatten(-1, (6, 12)).transpose(1, 2)
                 for layer in (self.query, self.key, self.value))  # fmt: skip
        mixed = functional.scaled_dot_product_attention(*parts)
        return self.head(functional.relu(self.out(mixed.transpose(1, 2).flatten(2))))


class Lookup(nn.Module):
    """A wide table whose columns cost parameters and not one FLOP, beside a costly pair."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 16)
        self.first = nn.Linear(5, 20)
        self.second = nn.Linear(20, 3)

    def forward(self, words, x):
        return self.table(words).sum((1, 2))[:, None] + self.second(torch.relu(self.first(x)))


class Parallel(nn.Module):
    """Two hidden layers beside each other: no cost depends on both widths."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 9), nn.Linear(5, 14)
        self.end_a, self.end_b = nn.Linear(9, 2), nn.Linear(14, 4)

    def forward(self, x, y):
        return self.end_a(torch.relu(self.a(x))), self.end_b(torch.relu(self.b(y)))


def unequal() -> nn.Sequential:
    """Stages whose share of the FLOPs and whose worth have nothing to do with each other."""
    layers: list[nn.Module] = []
    before = 3
    for width, stride in ((8, 1), (48, 1), (12, 2), (64, 2), (16, 1)):
        layers += [nn.Conv2d(before, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 5))


@cache
def structure_of(net: str) -> sc.Structure:
    torch.manual_seed(0)
    if net == "attention":
        return sc.trace(Attention(), torch.randn(2, 5, 10))
    if net == "lookup":
        return sc.trace(Lookup(), (torch.randint(0, 50, (2, 4)), torch.randn(2, 5)))
    if net == "parallel":
        return sc.trace(Parallel(), (torch.randn(2, 3), torch.randn(2, 5)))
    if net == "chain":
        layers = [nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 8)]
        return sc.trace(nn.Sequential(*layers, nn.ReLU(), nn.Linear(8, 2)), torch.randn(2, 3))
    if net == "unequal":
        return sc.trace(unequal(), torch.randn(2, 3, 12, 12))
    if net == "wide":
        wide = nn.Sequential(nn.Linear(4, 100), nn.ReLU(), nn.Linear(100, 60), nn.ReLU(),
                             nn.Linear(60, 3))  # fmt: skip
        return sc.trace(wide, torch.randn(2, 4))
    return sc.trace(ZOO[net].build(), ZOO[net].inputs())


def drawn(structure: sc.Structure, seed: int) -> dict[str, torch.Tensor]:
    """Random scores, of another magnitude in every group."""
    generator = torch.Generator().manual_seed(seed)
    return {
        group.name: torch.rand(group.size, generator=generator) * 10.0**number
        for number, group in enumerate(structure.groups)
    }


def flops(share: float) -> dict[str, Quantity]:
    return {"flops": Quantity(share, "fraction")}


def units_left(structure: sc.Structure, remove) -> dict[str, int]:
    return {g.name: g.size - len(remove.get(g.name, ())) for g in structure.groups}


def choose(name: str, scores, structure: sc.Structure, request: Request):
    return POLICIES.get(name)(scores, structure, request)

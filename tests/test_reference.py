"""The zeroed reference where zeros alone say nothing: a quotient by a sum that is left empty."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.surgery.reference import InDouble

HEADS, WIDTH = 3, 4


class LinearAttention(nn.Module):
    """Keys and queries through a feature map, divided by their sum: no softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 7)
        self.qkv = nn.Linear(7, 3 * HEADS * WIDTH)
        self.out = nn.Linear(HEADS * WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.embed(x)).unflatten(-1, (3, HEADS, WIDTH)).permute(2, 0, 3, 1, 4)
        q, k, v = F.elu(qkv[0]) + 1, F.elu(qkv[1]) + 1, qkv[2]
        total = (q * k.sum(-2, keepdim=True)).sum(-1, keepdim=True)
        return self.out((q @ (k.transpose(-2, -1) @ v) / total).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("method", ["auto", "graph"])
def test_a_head_of_linear_attention_leaves(method: str) -> None:
    torch.manual_seed(0)
    model, inputs = LinearAttention().double().eval(), torch.randn(2, 6, 5, dtype=torch.float64)
    structure = sc.trace(model, inputs)
    heads = next(group for group in structure.groups if group.size == HEADS)
    plan = sc.PruningPlan({heads.name: [1]})
    pruned = sc.apply(model, plan, inputs, method=method)  # type: ignore[arg-type]
    without = copy.deepcopy(model)
    with torch.no_grad():
        without.out.weight[:, WIDTH : 2 * WIDTH] = 0  # nobody listens to the second head
        assert torch.allclose(pruned(inputs), without(inputs), rtol=0, atol=1e-12)
        assert not torch.allclose(pruned(inputs), model(inputs), rtol=0, atol=1e-3)
    verdict = sc.verify(model, pruned, plan, inputs)
    assert verdict.ok, verdict


def test_tensors_of_the_default_type_are_float64_too() -> None:
    before = torch.get_default_dtype()
    with InDouble():
        lowest = torch.full((), torch.finfo(torch.float64).min)
        assert torch.zeros(2).dtype == torch.float64
    assert lowest.dtype == torch.float64
    assert torch.get_default_dtype() == before


class FixedBasis(nn.Module):
    """Multiplies by matrices that are plain attributes, of which torch knows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(6, 3)
        self.basis = [torch.randn(8, 6)]
        self.turn = torch.eye(6).flip(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x)) @ self.basis[0] @ self.turn)


def test_tensors_that_are_plain_attributes_are_verified_in_float64() -> None:
    torch.manual_seed(0)
    model, x = FixedBasis(), torch.randn(2, 4)
    structure = sc.trace(model, x)
    plan = sc.PruningPlan({structure.groups[0].name: [1, 5]})
    pruned = sc.apply(model, plan, x, structure=structure)
    verdict = sc.verify(model, pruned, plan, x, structure=structure)
    assert verdict.ok and verdict.error < 1e-12
    assert model.turn.dtype == model.basis[0].dtype == torch.float32


class Codes(nn.Module):
    """Pixels as rows, by a view that only the layout of the dense run allows."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.norm = nn.Linear(4, 8), nn.GroupNorm(2, 8)
        self.conv, self.head = nn.Conv2d(8, 6, 1), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inp(x).transpose(1, 2).reshape(x.shape[0], -1, 3, 3)
        y = self.conv(self.norm(y) + y)
        return self.head(y.permute(0, 2, 3, 1).contiguous().view(-1, 6))


def test_views_of_what_lies_otherwise_than_in_the_dense_run() -> None:
    torch.manual_seed(0)
    model, x = Codes().eval(), torch.randn(2, 9, 4)
    structure = sc.trace(model, x)
    plan = sc.PruningPlan({group.name: [0] for group in structure.groups})
    pruned = sc.apply(model, plan, x, method="graph", structure=structure)
    assert sc.verify(model, pruned, plan, x, structure=structure).ok

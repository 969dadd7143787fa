"""Sums of one number for each sample, as recommenders and regressions end with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import secateur as sc
from secateur.repair.tracing import traces


class Factors(nn.Module):
    """A factorisation machine with a deep part: all three parts are [N]."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.single = nn.Embedding(20, 6), nn.Embedding(20, 1)
        self.deep = nn.Sequential(nn.Linear(18, 16), nn.ReLU(), nn.Linear(16, 1))

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.rows(x)
        pairs = 0.5 * (rows.sum(1).square() - rows.square().sum(1)).sum(1)
        return self.single(x).sum((1, 2)) + pairs, self.deep(rows.flatten(1)).squeeze(1)

    def forward(self, x: Tensor) -> Tensor:
        plain, deep = self.parts(x)
        return plain + deep


def test_a_branch_of_single_numbers_costs_what_the_rest_does_not_say_of_it():
    torch.manual_seed(0)
    model, x = Factors().eval(), torch.randint(20, (4096, 3))
    structure = sc.trace(model, x[:2])
    (branch,) = [b for b in structure.branches if b.name == "branch:deep.2"]
    _, whole = traces(model, structure, [x], branches=[branch])
    with torch.no_grad():
        plain, deep = (part.double() for part in model.parts(x))
        ones = torch.stack([plain, torch.ones_like(plain)], 1)
        rest = deep - ones @ torch.linalg.lstsq(ones, deep[:, None]).solution[:, 0]
        # Fisher information of a normal answer whose deviation is that of the answers
        expected = 0.5 * rest.square().mean() / (plain + deep).var()
    assert whole[branch.name] == pytest.approx(float(expected), rel=0.1)  # answers are drawn


def test_it_can_be_pruned_with_its_defaults():
    torch.manual_seed(0)
    model = Factors().eval()
    x = torch.randint(20, (256, 3))
    data = TensorDataset(x, model(x).detach())
    result = sc.compress(
        model, data, data, target={"flops": 0.5}, epochs=0,
        recipe={"latency": None, "pruning": {"refine": 0}},
    )  # fmt: skip
    assert result.reached
    assert result.metrics["after"]["flops"] <= 0.5 * result.metrics["before"]["flops"]

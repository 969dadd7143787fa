"""Plans on models that graph surgery made: both of their graphs are cut again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import secateur as sc


class Tables(nn.Module):
    """Tables of the width in attributes that are no buffers: one, or another in train mode."""

    def __init__(self, apart: bool) -> None:
        super().__init__()
        self.inp, self.head = nn.Linear(4, 8), nn.Linear(8, 2)
        self.table = torch.linspace(-1, 1, 24).view(3, 8)
        self.other = torch.linspace(2, 3, 24).view(3, 8) if apart else self.table

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inp(x) + (self.other if self.training else self.table)))


@pytest.mark.parametrize("apart", [False, True])
def test_a_table_that_is_no_buffer_is_cut_again_in_both_modes(apart: bool) -> None:
    torch.manual_seed(0)
    model, x = Tables(apart), torch.randn(2, 3, 4)
    (group,) = sc.trace(model, x).groups
    once = sc.apply(model, sc.PruningPlan({group.name: [0, 3]}), x)
    structure = sc.trace(once, x)
    assert [g.size for g in structure.groups] == [6]
    plan = sc.PruningPlan({structure.groups[0].name: [1, 2]})
    twice = sc.apply(once, plan, x, structure=structure)
    kept = [1, 5, 6, 7]  # of 1, 2, 4, 5, 6, 7 the second and third left
    for training in (False, True):
        table = (model.other if training else model.table)[:, kept]
        hidden = torch.tanh(x @ model.inp.weight[kept].T + model.inp.bias[kept] + table)
        wanted = hidden @ model.head.weight[:, kept].T + model.head.bias
        torch.testing.assert_close(twice.train(training)(x), wanted)

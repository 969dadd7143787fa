"""Buffers that forward registers: export must leave none behind, nor write into an input."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

import secateur as sc


class LateTable(nn.Module):
    """A table that forward registers as a buffer when it is called first."""

    def __init__(self) -> None:
        super().__init__()
        self.inp = nn.Linear(4, 6)
        self.register_buffer("slopes", torch.linspace(0.1, 1, 6), persistent=False)
        self.register_buffer("bias", None, persistent=False)
        self.head = nn.Linear(6, 2)

    def table(self, places: int) -> Tensor:
        known: Tensor | None = self._buffers["bias"]
        if known is None or len(known) < places:
            slopes = self.get_buffer("slopes")
            known = torch.arange(places, dtype=slopes.dtype)[:, None] * slopes
            self.register_buffer("bias", known, persistent=False)
        return known[:places]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inp(x) + self.table(x.shape[1])))


@pytest.mark.parametrize("method", ["module", "graph"])
def test_a_table_registered_in_the_first_call(method: Literal["module", "graph"]) -> None:
    torch.manual_seed(0)
    model, x = LateTable(), torch.randn(2, 3, 4)
    given = x.clone()
    structure = sc.trace(model, x)
    (group,) = structure.groups
    assert group.size == 6 and {m.tensor for m in group.members} > {"slopes"}
    plan = sc.PruningPlan({group.name: [0, 3]})
    pruned = sc.apply(model, plan, x, method=method, structure=structure)
    assert model._buffers["bias"] is None  # no tensor without values is left behind
    assert sc.verify(model, pruned, plan, x, structure=structure).ok
    longer = torch.randn(2, 5, 4)
    if method == "module":
        assert pruned(longer).shape == (2, 5, 2)
    pruned(x)
    assert torch.equal(x, given)
    model(x)  # now there is a table, of which the trace knows nothing
    again = sc.apply(model, plan, x, method=method, structure=structure)
    assert model.get_buffer("bias").shape == (3, 6)
    torch.testing.assert_close(again(x), pruned(x))

"""Models with complex weights: scored by size, verified in complex128, saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

import secateur as sc


class Modes(nn.Module):
    """Two layers of complex weights over the frequencies of the places."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(4, 6, 3, dtype=torch.cfloat))
        self.second = nn.Parameter(torch.randn(6, 5, 3, dtype=torch.cfloat))
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("bim,iom->bom", torch.fft.rfft(x), self.first)
        y = torch.einsum("bim,iom->bom", y, self.second)
        return self.head(torch.fft.irfft(y, n=x.shape[-1]).mT)


@pytest.mark.parametrize("method", ["module", "graph"])
def test_complex_weights_are_scored_cut_verified_and_saved(
    tmp_path: Path, method: Literal["module", "graph"]
) -> None:
    torch.manual_seed(0)
    model, x = Modes().eval(), torch.randn(2, 4, 4)
    structure = sc.trace(model, x)
    sizes = {group.members[0].tensor: group.size for group in structure.groups}
    assert sorted(group.size for group in structure.groups) == [5, 6], sizes
    with torch.no_grad():  # a unit without a real part is no small one
        model.first[:, 2] = torch.tensor(10j)
        model.first[:, 4] = torch.tensor(0.01j)
    plan = sc.plan(model, structure, criterion="l2", budget={"params": 0.8}, scope="local")
    name = next(group.name for group in structure.groups if group.size == 6)
    assert 4 in plan.remove[name] and 2 not in plan.remove[name]
    pruned = sc.apply(model, plan, x, method=method, structure=structure)
    assert sc.verify(model, pruned, plan, x, structure=structure).ok
    sc.save(pruned, tmp_path / "pruned")
    torch.testing.assert_close(sc.load(tmp_path / "pruned", Modes).eval()(x), pruned(x))

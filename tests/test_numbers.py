"""Whole numbers that forward reads from its inputs: those of the example, and no other path."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.errors import CaptureError


class Padded(nn.Module):
    """A sum over the places that are none of padding, with the mask of the longest sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.head = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        longest = int(lengths.max().item())
        mask = torch.arange(longest)[None] >= lengths[:, None]
        hidden = torch.tanh(self.inp(x)).masked_fill(mask[..., None], 0.0)
        return self.head(hidden.sum(1))


class ByTruth(Padded):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.head(self.inp(x).sum(1) if lengths.max() > 2 else self.inp(x).mean(1))


class ByHits(Padded):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        total = torch.zeros_like(self.inp(x)[:, 0])
        for place in (lengths > 2).nonzero():
            total = total + self.inp(x)[:, int(place[0])]
        return self.head(total)


INPUTS = torch.randn(2, 5, 4), torch.tensor([5, 3])


def test_a_model_that_reads_the_longest_length_is_cut() -> None:
    torch.manual_seed(0)
    model = Padded()
    structure = sc.trace(model, INPUTS)
    (group,) = structure.groups
    assert group.size == 8
    assert any("longest = int(lengths.max().item())" in note for note in structure.notes)
    plan = sc.PruningPlan({group.name: [1, 6]})
    pruned = sc.apply(model, plan, INPUTS, method="module", structure=structure)
    assert sc.verify(model, pruned, plan, INPUTS, structure=structure).ok
    kept = [0, 2, 3, 4, 5, 7]
    x, lengths = torch.randn(3, 7, 4), torch.tensor([7, 2, 4])  # another longest one
    hidden = torch.tanh(x @ model.inp.weight[kept].T + model.inp.bias[kept])
    hidden = hidden * (torch.arange(7)[None] < lengths[:, None])[..., None]
    wanted = hidden.sum(1) @ model.head.weight[:, kept].T + model.head.bias
    torch.testing.assert_close(pruned(x, lengths), wanted)


def test_the_graph_refuses_other_numbers_than_those_of_the_example() -> None:
    model = Padded()
    structure = sc.trace(model, INPUTS)
    plan = sc.PruningPlan({structure.groups[0].name: [1, 6]})
    pruned = sc.apply(model, plan, INPUTS, method="graph", structure=structure)
    assert sc.verify(model, pruned, plan, INPUTS, structure=structure).ok
    with pytest.raises(RuntimeError, match="assertion failed"):
        pruned(INPUTS[0], torch.tensor([4, 3]))


@pytest.mark.parametrize("model", [ByTruth(), ByHits()])
def test_code_with_other_paths_is_refused(model: nn.Module) -> None:
    with pytest.raises(CaptureError, match="data-dependent branches"):
        sc.trace(model, INPUTS)

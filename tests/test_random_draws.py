"""Models that draw random numbers in eval mode, as autoencoders that sample their code."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

import secateur as sc


class Sampled(nn.Module):
    """A variational autoencoder: its code is drawn in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.mean, self.spread = nn.Linear(6, 9), nn.Linear(9, 5), nn.Linear(9, 5)
        self.decoder = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.encoder(x))
        mean = self.mean(hidden)
        noise = torch.randn_like(mean)
        return self.decoder(mean + noise * torch.exp(self.spread(hidden) / 2))


@pytest.mark.parametrize("method", ["module", "graph"])
def test_what_samples_is_verified_with_the_same_draws(method: Literal["module", "graph"]) -> None:
    torch.manual_seed(0)
    model, x = Sampled().eval(), torch.randn(2, 6)
    structure = sc.trace(model, x)
    assert sorted(group.size for group in structure.groups) == [5, 8, 9]
    plan = sc.PruningPlan({group.name: [0, 2] for group in structure.groups})
    pruned = sc.apply(model, plan, x, method=method, structure=structure)
    state = torch.get_rng_state()
    assert sc.verify(model, pruned, plan, x, structure=structure).ok
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        next(pruned.parameters())[0] += 1
    assert not sc.verify(model, pruned, plan, x, structure=structure, strict=False).ok

"""Who watches the oracle: its parts against nets that are really smaller, made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from oracle import compare, randomise, zeroed


def test_zeroed_rows_equal_a_smaller_net() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    randomise(net, seed=0)
    gone, kept = np.array([1, 4]), torch.tensor([0, 2, 3, 5, 6])
    small = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    weights = net.state_dict()
    small.load_state_dict(
        {
            "0.weight": weights["0.weight"][kept],
            "0.bias": weights["0.bias"][kept],
            "2.weight": weights["2.weight"][:, kept],
            "2.bias": weights["2.bias"],
        }
    )
    before = {key: value.clone() for key, value in net.state_dict().items()}
    copy = zeroed(net, {("0.weight", 0): gone, ("0.bias", 0): gone, ("2.weight", 1): gone})
    result = compare(net, small, copy, torch.randn(2, 5, dtype=torch.float64))
    assert result.error < 1e-12 < 1e-2 < result.effect
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert compare(net, net, copy, torch.randn(2, 5, dtype=torch.float64)).error > 0.5


@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
def test_a_norm_over_survivors_equals_a_shorter_norm(kind: type[nn.Module]) -> None:
    net = randomise(nn.Sequential(kind(8)), seed=1)
    gone, kept = np.array([0, 3, 7]), torch.tensor([1, 2, 4, 5, 6])
    short = kind(5).double()
    with torch.no_grad():
        for name, parameter in short.named_parameters():
            parameter.copy_(net.get_parameter(f"0.{name}")[kept])
    copy = zeroed(net, {(f"0.{name}", 0): gone for name, _ in short.named_parameters()})
    x = torch.randn(2, 4, 8, dtype=torch.float64)
    y = copy(x)
    assert torch.allclose(y[..., kept], short(x[..., kept]), rtol=0, atol=1e-12)
    assert not y[..., gone].any()
    assert not torch.allclose(y[..., kept], net(x)[..., kept], rtol=0, atol=1e-3)


def test_a_group_norm_over_survivors_equals_a_smaller_norm() -> None:
    net = randomise(nn.Sequential(nn.GroupNorm(3, 12)), seed=2)
    # the second norm group leaves whole, and the third position of every group
    kept = torch.tensor([0, 1, 3, 8, 9, 11])
    gone = np.setdiff1d(np.arange(12), kept.numpy())
    small = nn.GroupNorm(2, 6).double()
    with torch.no_grad():
        small.weight.copy_(net.get_parameter("0.weight")[kept])
        small.bias.copy_(net.get_parameter("0.bias")[kept])
    copy = zeroed(net, {("0.weight", 0): gone, ("0.bias", 0): gone})
    x = torch.randn(2, 12, 5, dtype=torch.float64)
    y = copy(x)
    assert torch.allclose(y[:, kept], small(x[:, kept]), rtol=0, atol=1e-12)
    assert not y[:, gone].any()


def test_randomise_leaves_nothing_at_zero_or_one() -> None:
    net = randomise(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)), seed=3)
    statistics = [net.get_buffer("1.running_mean"), net.get_buffer("1.running_var")]
    for value in [*net.parameters(), *statistics]:
        assert value.dtype == torch.float64
        assert value.abs().min() > 0 and value.unique().numel() == value.numel()
    twice = [randomise(nn.Linear(4, 4), seed=5).get_parameter("weight") for _ in range(2)]
    assert torch.equal(*twice)

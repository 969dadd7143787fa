"""``block_prune``: filters by their share, blocks of what stays, and what follows them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import secateur as sc
from oracle import randomise

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net(weak: int = 6) -> nn.Sequential:
    """Some filters of the first layer, and all that reads them, are a thousandth."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip
    randomise(model, seed=0).float().eval()
    with torch.no_grad():
        for tensor in (model[0].weight, model[0].bias, model[1].weight, model[1].bias):
            tensor[:weak] *= 1e-3
        model[3].weight[:, :weak] *= 1e-3
    return model


def shares(model: nn.Sequential) -> torch.Tensor:
    """Of the norms of all that leaves with a filter of the first layer."""
    parts = [model[0].weight.flatten(1), model[0].bias[:, None], model[1].weight[:, None],
             model[1].bias[:, None], model[3].weight.transpose(0, 1).flatten(1)]  # fmt: skip
    norms = torch.cat([part.detach().double() for part in parts], 1).norm(dim=1)
    return norms / norms.sum()


def test_filters_below_the_share_leave_and_readers_follow():
    model = net()
    before = copy.deepcopy(model.state_dict())
    found = sc.block_prune(model, X, threshold=0.005, blocks=False)
    share = shares(model)
    stays = (share > 0.005).nonzero()[:, 0].tolist()
    assert stays == list(range(6, 24))
    assert found.active["0"] == tuple(stays)
    assert found.active["3"] == tuple(range(16)) and found.active["7"] == tuple(range(5))
    assert [found.model[n].weight.shape[0] for n in (0, 3)] == [18, 16]
    assert found.model[3].weight.shape[1] == 18
    assert sc.verify(model, found.model, found.plan, X).ok
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    # multiply-adds count two: 64 places, 9 entries of a kernel
    assert found.flops[0] - found.flops[1] == pytest.approx(2 * 64 * 9 * (3 + 16) * 6, rel=0.1)
    assert found.masks == {} and found.accuracy is None


@pytest.mark.parametrize(("threshold", "least", "left"), [
    (0.0, 8, 24), (0.005, 8, 18), (0.99, 8, 8), (0.99, 3, 3), (0.99, 30, 24), (0.005, 20, 20),
])  # fmt: skip
def test_the_weakest_leave_first_and_never_too_many(threshold, least, left):
    model = net()
    found = sc.block_prune(model, X, threshold, least, blocks=False)
    order = shares(model).argsort(descending=True)[:left]
    assert found.active["0"] == tuple(sorted(order.tolist()))


def test_weak_blocks_of_what_stays_become_zero():
    model = nn.Sequential(nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3))
    torch.manual_seed(0)
    randomise(model, seed=0).float()
    with torch.no_grad():
        model[0].weight[20:, :20] *= 1e-3
    found = sc.block_prune(model, torch.randn(2, 40), threshold=0.005, max_filter_size=20)
    weight, mask = found.model[0].weight, found.masks["0.weight"]
    assert found.plan.remove == {}
    assert (weight[20:, :20] == 0).all() and int((~mask).sum()) == 400
    assert torch.equal(weight != 0, mask)
    assert torch.equal(weight[mask], model[0].weight[mask])
    assert found.nonzero == (40 * 41 + 3 * 41, 40 * 41 + 3 * 41 - 400)
    small = sc.block_prune(model, torch.randn(2, 40), 0.005, max_filter_size=7)
    # 36 blocks of 6 or 7 a side; those that lie in the weak quarter alone are the weak ones
    gone = (~small.masks["0.weight"]).nonzero()
    assert gone[:, 0].min() >= 20 and gone[:, 1].max() < 20 and len(gone) >= 18 * 14


def test_blocks_leave_the_least_number_of_filters():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 12))
    for least in (1, 8, 11):
        found = sc.block_prune(model, torch.randn(2, 30), 0.99, least, 3)
        for name, mask in found.masks.items():
            outputs = int(mask.any(1).sum())
            assert min(least, len(mask)) <= outputs < min(least, len(mask)) + 3, name


def test_accuracy_and_second_derivatives_with_data():
    model = net(weak=0)
    inputs = torch.randn(60, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        targets = model(inputs).argmax(1)
    rows = [(inputs[:30], targets[:30]), (inputs[30:], targets[30:])]
    found = sc.block_prune(model, X, 0.02, score="obd", data=rows)
    with torch.no_grad():
        right = float((found.model(inputs).argmax(1) == targets).float().mean())
    assert found.accuracy == (1.0, pytest.approx(right))
    assert found.plan.why["criterion"] == "obd" and found.plan.remove
    norms = sc.block_prune(model, X, 0.02, data=iter(rows))
    assert norms.accuracy[0] == 1.0 and norms.plan.remove != found.plan.remove


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"threshold": 1.0}, "threshold is 1.0; give a share of a layer's score"),
        ({"threshold": -0.1}, "0 to below 1"),
        ({"threshold": "0.1"}, "0 to below 1"),
        ({"min_filter_num": 0}, "min_filter_num is 0; give a whole number"),
        ({"min_filter_num": 2.5}, "min_filter_num is 2.5"),
        ({"max_filter_size": 0}, "max_filter_size is 0"),
        ({"score": "l3"}, "unknown criterion"),
        ({"score": "obd"}, "needs data"),
    ],
)
def test_what_cannot_be_is_said(arguments, said):
    with pytest.raises(sc.InputError, match=said):
        sc.block_prune(net(), X, **arguments)

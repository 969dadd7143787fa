"""Regularisers that act on units: scales of batch norms, coupled groups, growing decay."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import secateur as sc
from method_cases import (
    linear_data,
    moment,
    scene_of,
    settings_of,
    structure_of_small_net,
    trained,
)
from secateur.boundary import Boundary
from secateur.regularisers.group_lasso import GroupLasso
from secateur.regularisers.growing import Growing
from secateur.regularisers.polarisation import Polarisation
from secateur.regularisers.slimming import Slimming
from secateur.training.loop import finetune
from training_cases import small_net


def test_slimming_with_a_large_weight_makes_every_scale_zero():
    net = small_net()
    history = trained(Slimming(weight=100.0), net)
    assert not net[1].weight.any() and not net[5].weight.any()
    assert history.epochs[-1].details["scales_at_zero"] == 1.0 and not history.remove


def test_slimming_removes_the_units_of_the_smallest_scales():
    net = small_net()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in (1, 5):
            net[layer].weight.copy_(torch.randn(net[layer].weight.shape, generator=generator))
    before = torch.cat([net[1].weight.detach(), net[5].weight.detach()])
    scene = scene_of(net, structure_of_small_net())
    extension = Slimming(weight=0.5, remove=0.4, until=1.0).begin(scene)
    extension.after_step(moment(0, 1, rate=0.1))
    shrunk = [math.copysign(max(abs(float(g)) - 0.05, 0.0), float(g)) for g in before]
    lowest = sorted(range(14), key=lambda u: abs(shrunk[u]))[: round(0.4 * 14)]
    removed = extension.finish().remove
    assert sorted(u for u in lowest if u < 8) == sorted(removed.get("0", ()))
    assert sorted(u - 8 for u in lowest if u >= 8) == sorted(removed.get("4", ()))
    after = torch.cat([net[1].weight.detach(), net[5].weight.detach()])
    expected = [0.0 if u in lowest else shrunk[u] for u in range(14)]
    np.testing.assert_allclose(after.numpy(), expected, atol=1e-7)


def test_after_its_choice_slimming_presses_no_more_and_the_rest_is_trained_without_the_units():
    net, seen = small_net(), []

    def look(report) -> None:
        seen.append(torch.cat([net[1].weight.detach(), net[5].weight.detach()]).clone())

    history = trained(Slimming(weight=0.05, remove=0.4, until=0.5), net, on_step=look)
    gone = [*history.remove.get("0", ()), *(8 + u for u in history.remove.get("4", ()))]
    assert len(gone) == round(0.4 * 14)
    assert not any(bool(scales[gone].any()) for scales in seen[8:])  # of 18 updates
    assert all(bool(scales[gone].all()) for scales in seen[:8])
    assert not history.epochs[0].best  # not in its final form yet


def test_methods_of_scales_want_batch_norms():
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    structure = sc.trace(net, torch.randn(2, 4))
    for method in (Slimming(), Polarisation()):
        with pytest.raises(sc.InputError, match=r"scales of batch norms.*take group-lasso"):
            method.begin(scene_of(net, structure))
        with pytest.raises(sc.InputError, match="none was given"):
            method.begin(scene_of(net))


def test_polarisation_is_its_formula_and_parts_the_scales():
    from secateur.regularisers.polarisation import polarised

    g = np.array([0.1, 0.9, 0.5, 0.3])
    expected = 1.2 * sum(abs(v) for v in g) - sum(abs(v - g.mean()) for v in g)
    assert float(polarised(torch.tensor(g), 1.2)) == pytest.approx(expected)
    # Without a loss only the penalty moves them: all that is above the mean rises for t < 1.
    scales = nn.Parameter(torch.tensor([0.30, 0.45, 0.55, 0.80], dtype=torch.float64))
    for _ in range(500):
        scales.grad = None
        polarised(scales, 0.9).backward()
        with torch.no_grad():
            scales.sub_(0.01 * scales.grad).clamp_(0, 1)
    np.testing.assert_allclose(scales.detach().numpy(), [0, 0, 1, 1], atol=0.05)


# -- coupled groups


def _regression(weight: float, epochs: int) -> nn.Linear:
    """One linear layer whose inputs may leave: a unit is a column of the weight."""
    data = linear_data()
    x = data.tensors[0]
    net = nn.Linear(4, 2, bias=False).double()
    with torch.no_grad():
        net.weight.zero_()
    structure = sc.trace(net, x[:2], boundary=Boundary(inputs=((0, 1),)))
    assert [g.size for g in structure.groups] == [4]
    settings = settings_of(
        epochs, batch_size=64, learning_rate=0.3, momentum=0.0, weight_decay=0.0,
        schedule="constant", checkpoint_every=None,
    )  # fmt: skip
    finetune(net, data, settings, methods=[GroupLasso(weight)], structure=structure)
    return net


def test_at_lambda_max_nothing_leaves_zero_and_just_below_it_something_does():
    """Loss |y - Xw|^2 / (n m), p = m weights a column: max_j 2 |X_j^T y| / (n m sqrt(p))."""
    x, y = linear_data().tensors
    largest = max(
        2 * float((x[:, j] @ y).norm()) / (x.shape[0] * 2 * math.sqrt(2)) for j in range(4)
    )  # fmt: skip
    assert not _regression(1.001 * largest, 30).weight.any()
    columns = _regression(0.98 * largest, 30).weight.detach().norm(dim=0)
    assert (columns > 0).sum() == 1 and columns.argmax() == (x.T @ y).norm(dim=1).argmax()


def test_a_unit_of_the_group_lasso_shrinks_by_its_prox_and_is_exactly_zero_in_the_end():
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    structure = sc.trace(net, torch.randn(2, 4).double())
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    extension = GroupLasso(0.2).begin(scene_of(net, structure))
    extension.after_step(moment(rate=0.5))
    for unit in range(5):
        own = torch.cat([before["0.weight"][unit], before["0.bias"][unit, None],
                         before["2.weight"][:, unit]])  # fmt: skip
        factor = max(0.0, 1 - 0.5 * 0.2 * math.sqrt(7) / float(own.norm()))
        torch.testing.assert_close(net[0].weight[unit].detach(), factor * before["0.weight"][unit])
        torch.testing.assert_close(net[0].bias[unit].detach(), factor * before["0.bias"][unit])
        torch.testing.assert_close(
            net[2].weight[:, unit].detach(), factor * before["2.weight"][:, unit]
        )
    assert torch.equal(net[2].bias.detach(), before["2.bias"])
    for _ in range(40):
        extension.after_step(moment(rate=0.5))
    assert not net[0].weight.any() and not net[2].weight.any()
    extension.show()
    removed = extension.finish().remove
    assert [len(units) for units in removed.values()] == [4]  # one of a group stays


def test_growing_decays_the_chosen_units_alone_and_ever_faster():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    structure = sc.trace(net, torch.randn(2, 4).double())
    before = net[0].weight.detach().clone()
    norms = [
        float(torch.cat([net[0].weight[u], net[0].bias[u, None], net[2].weight[:, u]]).norm())
        for u in range(6)
    ]
    lowest = sorted(np.argsort(norms)[:3].tolist())
    extension = Growing(remove=0.5, step=0.1, every=2, ceiling=0.25).begin(scene_of(net, structure))
    factor = 1.0
    for update, strength in enumerate([0.0, 0.1, 0.1, 0.2, 0.2, 0.25, 0.25]):
        extension.after_step(moment(update, 20, rate=0.5))
        factor *= 1 - 0.5 * strength
        torch.testing.assert_close(net[0].weight[lowest].detach(), factor * before[lowest])
    rest = [u for u in range(6) if u not in lowest]
    assert torch.equal(net[0].weight[rest].detach(), before[rest])
    extension.show()
    assert list(extension.finish().remove.values()) == [tuple(lowest)]
    assert not net[0].weight[lowest].any() and not net[2].weight[:, lowest].any()

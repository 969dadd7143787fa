"""Noise, the range of answers, and weights that are held within bounds."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import secateur as sc
from method_cases import linear_data, moment, scene_of, trained
from secateur.regularisers._consistency import answers
from secateur.regularisers.clamp import Clamp
from secateur.regularisers.gaussian_noise import GaussianNoise
from secateur.regularisers.max_norm import MaxNorm
from secateur.regularisers.output_range import OutputRange
from secateur.regularisers.salt_and_pepper import peppered
from secateur.training.extensions import Batch
from training_cases import blobs, small_net


def test_the_output_range_is_its_formula():
    net = nn.Linear(3, 2).double()
    x = torch.randn(5, 3).double()
    y = net(x)
    bound = float(y.abs().max()) * 0.6
    extension = OutputRange(bound, 0.5).begin(scene_of(net))
    value = extension.penalty(moment(), Batch(x, None, y))
    by_hand = sum(max(0.0, abs(float(v)) - bound) ** 2 for v in y.flatten()) / 5
    assert float(value) == pytest.approx(0.5 * by_hand, rel=1e-5) and by_hand > 0
    wide = OutputRange(float(y.abs().max()), 0.5).begin(scene_of(net))
    assert float(wide.penalty(moment(), Batch(x, None, y))) == 0  # nothing is beyond it


def test_noise_on_a_linear_model_is_ridge():
    """The mean over the noise of sum_i |w n_i|^2 is n sigma^2 |w|^2, of gradient 2 n sigma^2 w."""
    number, sigma, draws = 64, 0.5, 400
    net = nn.Linear(4, 2, bias=False).double()
    x, y = linear_data(number).tensors
    extension = GaussianNoise(1.0, sigma).begin(scene_of(net))
    total = torch.zeros(())
    for _ in range(draws):
        total = total + extension.penalty(moment(), Batch(x, y, net(x)))
    (total / draws * number).backward()
    ridge = number * sigma**2 * float(net.weight.detach().square().sum())
    # n * draws samples of a chi-square-like sum: a standard error of about 0.7 %
    assert float(total) / draws * number == pytest.approx(ridge, rel=0.03)
    expected = 2 * number * sigma**2 * net.weight.detach()
    assert float((net.weight.grad - expected).norm() / expected.norm()) < 0.03


def test_consistency_of_classes_is_the_divergence_and_leaves_the_statistics():
    net = small_net().train()
    net[3].p = 0.0
    images, classes = blobs(12).tensors
    extension = GaussianNoise(2.0, 0.3).begin(scene_of(net))
    outputs = net(images)
    buffers = {n: b.clone() for n, b in net.named_buffers()}
    value = extension.penalty(moment(), Batch(images, classes, outputs))
    assert all(torch.equal(b, buffers[n]) for n, b in net.named_buffers())
    again = torch.Generator().manual_seed(0)
    noisy = images + 0.3 * torch.randn(images.shape, generator=again)
    p = outputs.detach().softmax(1).double().numpy()
    q = answers(net, noisy).detach().softmax(1).double().numpy()
    divergence = sum(p[i, c] * math.log(p[i, c] / q[i, c]) for i in range(12) for c in range(3))
    assert float(value) == pytest.approx(2 * divergence / 12, rel=1e-4)


def test_salt_and_pepper_turns_the_share_that_it_says_half_of_it_each_way():
    images = torch.rand(60, 3, 20, 20) * 0.8 + 0.1
    low, high = float(images.min()), float(images.max())
    noisy = peppered(images, 0.2, torch.Generator().manual_seed(0))
    changed = (noisy != images).any(1)
    places = changed.numel()
    error = 4 * math.sqrt(0.2 * 0.8 / places)
    assert abs(float(changed.double().mean()) - 0.2) < error
    dark = (noisy == low).all(1)
    assert abs(float(dark.double().mean()) - 0.1) < error
    assert torch.equal(changed, dark | (noisy == high).all(1))  # all channels of a place together
    assert torch.equal(noisy.movedim(1, -1)[~changed], images.movedim(1, -1)[~changed])


def test_noise_wants_inputs_of_floats():
    net = nn.Embedding(5, 3)
    tokens = torch.randint(5, (4,))
    extension = GaussianNoise().begin(scene_of(net))
    with pytest.raises(sc.InputError, match="adds noise to inputs of floats"):
        extension.penalty(moment(), Batch(tokens, tokens, net(tokens)))


# -- constraints


def test_weights_stay_within_their_range_after_every_update():
    net, worst = small_net(), [0.0]

    def look(report) -> None:
        worst[0] = max(worst[0], float(net[0].weight.abs().max()), float(net[4].weight.abs().max()))

    history = trained(Clamp(limit=0.125), net, on_step=look)
    assert worst[0] <= 0.125 and history.epochs[-1].details["clamped"] > 0
    assert float(net[8].weight.abs().max()) > 0.125  # what makes the answers is left out
    named = small_net()
    trained(Clamp(limit=0.125, layers=("8",)), named)
    assert float(named[8].weight.abs().max()) <= 0.125 < float(named[0].weight.abs().max())


def test_the_range_is_a_multiple_of_the_deviation_at_the_start():
    net = small_net()
    bound = 1.5 * float(net[4].weight.std())
    trained(Clamp(deviations=1.5), net)
    assert float(net[4].weight.abs().max()) <= bound * (1 + 1e-6)


def test_rows_stay_in_their_ball_and_those_inside_are_not_touched():
    net = nn.Linear(6, 5).double()
    before = net.weight.detach().clone()
    norms = before.norm(dim=1)
    limit = float(norms.median())
    MaxNorm(limit).begin(scene_of(net)).after_step(moment())
    for row in range(5):
        expected = before[row] * min(1.0, limit / float(norms[row]))
        torch.testing.assert_close(net.weight[row].detach(), expected)
    inside = norms <= limit
    assert torch.equal(net.weight.detach()[inside], before[inside])

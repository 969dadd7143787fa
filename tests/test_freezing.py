"""Freezing by gradients, and dropout that follows pruning."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import secateur as sc
from method_cases import MethodTests, moment, scene_of, trained
from secateur.regularisers.dropout import Dropout
from secateur.regularisers.freezing import Freezing
from secateur.training.state import model_tensors
from training_cases import small_net


class TestFreezing(MethodTests):
    method = Freezing(share=0.4, every=2)
    wrong = (({}, "one of threshold and share"), ({"share": 0.2, "threshold": 0.1}, "one of"),
             ({"share": 1.0}, "share is 1"), ({"share": 0.2, "every": 0}, "every is 0"),
             ({"share": 0.2, "scope": "all"}, "scope is 'all'"))  # fmt: skip


class TestFreezingOfModules(TestFreezing):
    method = Freezing(scope="global", share=0.4, every=2)


class TestDropout(MethodTests):
    method = Dropout(zeros=0.8)
    wrong = (({"zeros": 1.0}, "share to remove is 1"), ({"until": 0.0}, "the lesser first"),
             ({"schedule": "cubik"}, "did you mean 'cubic'"))  # fmt: skip


def _step(net, extension, optimizer, gradients, at) -> None:
    for name, parameter in net.named_parameters():
        parameter.grad = gradients[name].clone()
    extension.after_backward(at)
    optimizer.step()
    extension.after_step(at)


def _two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()


def test_frozen_entries_are_bit_identical_under_momentum_and_decay_and_thaw():
    net = _two_layers()
    scene = scene_of(net, momentum=0.9, weight_decay=0.1)
    extension = Freezing(threshold=0.5, every=2, decay=0.0).begin(scene)
    small = {n: torch.full_like(p, 1.0) for n, p in net.named_parameters()}
    small["0.weight"][1, 2] = small["1.bias"][0] = 0.01
    for update in range(2):  # momentum is built up, then it is decided
        _step(net, extension, scene.optimizer, small, moment(update))
    frozen = {n: t.clone() for n, t in model_tensors(net).items()}
    for update in range(2, 5):
        _step(net, extension, scene.optimizer, small, moment(update))
    for name, tensor in model_tensors(net).items():
        same = tensor == frozen[name]
        expected = torch.zeros_like(same)
        if name == "0.weight":
            expected[1, 2] = True
        if name == "1.bias":
            expected[0] = True
        assert torch.equal(same, expected)
    assert extension.report()["frozen"] == 2 / sum(p.numel() for p in net.parameters())
    small["0.weight"][1, 2] = 1.0  # it is still watched
    _step(net, extension, scene.optimizer, small, moment(5))
    kept = net[0].weight[1, 2].item()
    _step(net, extension, scene.optimizer, small, moment(6))
    assert net[0].weight[1, 2].item() != kept


def test_a_module_is_frozen_as_a_whole_by_the_mean_square_of_its_gradients():
    net = _two_layers()
    scene = scene_of(net, momentum=0.9, weight_decay=0.1)
    extension = Freezing(scope="global", threshold=0.5, every=1, decay=0.0).begin(scene)
    gradients = {n: torch.full_like(p, 1.0) for n, p in net.named_parameters()}
    gradients["0.weight"][:] = 0.1
    gradients["0.bias"][:] = 0.7  # sqrt((12 * 0.01 + 4 * 0.49) / 16) = 0.36: under the limit
    assert math.sqrt((12 * 0.01 + 4 * 0.49) / 16) < 0.5
    _step(net, extension, scene.optimizer, gradients, moment(0))
    frozen = {n: t.clone() for n, t in model_tensors(net).items()}
    for update in range(1, 4):
        _step(net, extension, scene.optimizer, gradients, moment(update))
    for name, tensor in model_tensors(net).items():
        assert torch.equal(tensor, frozen[name]) == name.startswith("0.")


def test_a_share_freezes_the_smallest_and_never_their_values():
    net = _two_layers()
    scene = scene_of(net)
    extension = Freezing(share=0.25, every=1, decay=0.0).begin(scene)
    generator = torch.Generator().manual_seed(1)
    gradients = {n: torch.randn(p.shape, generator=generator).double()
                 for n, p in net.named_parameters()}  # fmt: skip
    _step(net, extension, scene.optimizer, gradients, moment(0))
    sizes = torch.cat([g.abs().flatten() for g in gradients.values()])
    chosen = torch.cat([extension.frozen[n].flatten() for n in gradients])
    assert int(chosen.sum()) == round(0.25 * len(sizes))
    assert sizes[chosen].max() < sizes[~chosen].min()
    assert all(bool(p.all()) for p in net.parameters())  # frozen is not zero


def test_dropout_falls_with_the_connections_and_comes_back():
    net, seen = small_net(), []
    history = trained(
        Dropout(zeros=0.75, schedule="linear", until=0.5), net,
        on_step=lambda report: seen.append(net[3].p),
    )  # fmt: skip
    for update, p in enumerate(seen):
        share = 0.75 * min(1.0, update / 18 / 0.5)
        assert p == pytest.approx(0.2 * math.sqrt(1 - share))
    assert seen[-1] == pytest.approx(0.1) and net[3].p == 0.2
    assert history.epochs[-1].details["dropout"] == pytest.approx(0.1)
    with pytest.raises(sc.InputError, match="modules of dropout"):
        Dropout().begin(scene_of(nn.Linear(2, 2)))

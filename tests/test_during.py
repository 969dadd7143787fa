"""Methods that prune while a net is trained: exactly as many zeros as stated, in their own way."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import secateur as sc
from method_cases import (
    MethodTests,
    moment,
    scene_of,
    settings_of,
    structure_of_small_net,
    trained,
)
from secateur.during import DURING
from secateur.during._window import Window
from secateur.during.gradual import Gradual
from secateur.during.movement import Movement
from secateur.during.network_surgery import NetworkSurgery
from secateur.during.rigl import RigL
from secateur.during.set_ import SparseEvolutionaryTraining
from secateur.during.soft_filters import SoftFilters
from secateur.masking import choose_masks
from secateur.training.loop import finetune
from secateur.training.state import model_tensors
from training_cases import blobs, small_net


class ZerosTests(MethodTests):
    """Methods with a share of zeros: the count at the end is exact, whatever the share."""

    @pytest.mark.parametrize("zeros", [0.3, 0.913])
    def test_the_share_of_zeros_is_exactly_the_stated_one(self, zeros: float) -> None:
        net = small_net()
        history = trained(replace(self.method, zeros=zeros), net)  # type: ignore[type-var]
        weights = [net[0].weight, net[4].weight, net[8].weight]
        total = sum(weight.numel() for weight in weights)
        assert sum(int((~mask).sum()) for mask in history.masks.values()) == round(zeros * total)
        # one that grew at the very end may not have moved yet
        assert sum(int((weight == 0).sum()) for weight in weights) >= round(zeros * total)
        assert net[1].weight.all() and net[8].bias.all()

    def test_what_is_kept_whole_has_no_zeros(self) -> None:
        net = small_net()
        history = trained(type(self.method)(zeros=0.8, keep=("0",)), net)
        assert set(history.masks) == {"4.weight", "8.weight"} and net[0].weight.all()


WRONG = (({"zeros": 0.0}, "zeros is 0"), ({"zeros": 1.0}, "zeros is 1"),
         ({"until": 0.0}, "the lesser first"), ({"every": 0}, "every is 0"),
         ({"keep": ("fc",)}, "keep names 'fc'"))  # fmt: skip
SCHEDULED = (*WRONG, ({"schedule": "cubik"}, "did you mean 'cubic'"))


class TestGradual(ZerosTests):
    method = Gradual(zeros=0.7, every=3)
    wrong = SCHEDULED


class TestNetworkSurgery(ZerosTests):
    method = NetworkSurgery(zeros=0.7, every=2)
    wrong = (*SCHEDULED, ({"band": -0.1}, "band is -0"))


class TestMovement(ZerosTests):
    method = Movement(zeros=0.6, every=2, scope="global")
    wrong = SCHEDULED


class TestRigL(ZerosTests):
    method = RigL(zeros=0.7, every=2)
    wrong = (*WRONG, ({"drop": 0.0}, "drop is 0"))


class TestSparseEvolutionaryTraining(ZerosTests):
    method = SparseEvolutionaryTraining(zeros=0.7, every=2)
    wrong = (*WRONG, ({"drop": 1.5}, "drop is 1"))


class TestSoftFilters(MethodTests):
    method = SoftFilters(units=0.4)
    wrong = (({"units": 0.0}, "units is 0"), ({"scope": "erk"}, "scope is 'erk'"),
             ({"units": 0.95}, "give a smaller share"),
             ({"until": 0.0}, "until is 0"))  # fmt: skip


def test_every_method_has_its_conformance_case():
    covered = {name.removeprefix("Test") for name in globals() if name.startswith("Test")}
    assert {type_.__name__ for type_ in map(DURING.get, DURING.names())} <= covered


@pytest.mark.parametrize(("updates", "start", "until", "every", "expected"), [
    (20, 0.0, 0.75, 4, [4, 8, 12, 15]), (20, 0.25, 1.0, 5, [5, 10, 15, 20]),
    (20, 0.0, 0.5, None, list(range(1, 11))), (3, 0.0, 0.2, 1, [1]), (1, 0.0, 1.0, None, [1]),
])  # fmt: skip
def test_masks_change_within_their_window_and_at_its_end(updates, start, until, every, expected):
    window = Window(start, until, every)
    due = [u + 1 for u in range(updates) if window.due(moment(u, updates))]
    assert due == expected
    assert window.progress(moment(due[-1] - 1, updates)) == 1.0
    assert window.over(moment(due[-1] - 1, updates))


def _pair(**sgd: float) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    return net, torch.randn(16, 6).double(), torch.randn(16, 3).double()


def _update(net, extension, optimizer, x, y, at) -> None:
    """One update, as the loop makes it."""
    optimizer.zero_grad()
    extension.before_forward(at)
    nn.functional.mse_loss(net(x), y).backward()
    extension.after_backward(at)
    optimizer.step()
    extension.after_step(at)


def test_weights_behind_the_masks_of_gradual_pruning_are_kept_and_get_no_gradient():
    net, x, y = _pair()
    scene = scene_of(net)
    extension = Gradual(zeros=0.6, schedule="linear", until=1.0, every=1).begin(scene)
    for update in range(10):
        before = {n: p.detach().clone() for n, p in net.named_parameters()}
        masks = {n: m.clone() for n, m in extension.masks.items()}
        _update(net, extension, scene.optimizer, x, y, moment(update, 10))
        for name, mask in masks.items():
            after = dict(net.named_parameters())[name].detach()
            assert torch.equal(after[~mask], before[name][~mask]) and before[name].all()
            assert not torch.equal(after[mask], before[name][mask])
        zeros = sum(int((~m).sum()) for m in extension.masks.values())
        assert zeros == round(0.6 * (update + 1) / 10 * 72)
        sizes = {n: dict(net.named_parameters())[n].abs() for n in masks}
        expected = choose_masks(sizes, 0.6 * (update + 1) / 10)
        assert all(torch.equal(extension.masks[n], expected[n]) for n in masks)


def test_the_masked_network_is_the_one_that_runs():
    net, x, _ = _pair()
    extension = Gradual(zeros=0.5).begin(scene_of(net))
    whole = net(x)
    extension.masks = choose_masks({n: torch.rand_like(m.double()) for n, m in
                                    extension.masks.items()}, 0.5)  # fmt: skip
    by_hand = (
        torch.tanh(x @ (net[0].weight * extension.masks["0.weight"]).T + net[0].bias)
        @ (net[2].weight * extension.masks["2.weight"]).T + net[2].bias
    )  # fmt: skip
    extension.show()
    torch.testing.assert_close(net(x), by_hand)
    extension.hide()
    assert torch.equal(net(x), whole)


def test_network_surgery_splices_a_weight_that_grew_back_and_cuts_with_a_band():
    net, x, y = _pair()
    scene = scene_of(net)
    extension = NetworkSurgery(zeros=0.5, band=0.2, until=1.0, every=1, schedule="one-shot").begin(
        scene
    )
    _update(net, extension, scene.optimizer, x, y, moment(0, 5))
    mask = extension.masks["0.weight"]
    place = tuple((~mask).nonzero()[0].tolist())
    before = float(net[0].weight[place])
    _update(net, extension, scene.optimizer, x, y, moment(1, 5))
    assert float(net[0].weight[place]) != before  # cut, and trained on
    with torch.no_grad():
        net[0].weight[place] = 100.0
    _update(net, extension, scene.optimizer, x, y, moment(2, 5))
    assert extension.masks["0.weight"][place]  # spliced back
    # hysteresis: one of either side, the outer larger by less than the band, stay where they are
    net[0].weight.data.zero_(), net[2].weight.data.zero_()
    flat = net[0].weight.data.view(-1)
    flat[0], flat[1] = 1.0, 1.1
    extension.masks = {n: torch.zeros_like(m) for n, m in extension.masks.items()}
    extension.masks["0.weight"].view(-1)[0] = True
    extension.settings = NetworkSurgery(zeros=71 / 72, band=0.2, schedule="one-shot", until=1.0)
    assert extension.renewed(moment(3, 5))["0.weight"].view(-1)[:2].tolist() == [True, False]
    flat[1] = 1.3
    assert extension.renewed(moment(3, 5))["0.weight"].view(-1)[:2].tolist() == [False, True]


def test_under_a_constant_gradient_movement_scores_are_minus_rate_times_gradient_times_weight():
    """S = -rate T g w, where neither g nor w changes: a linear loss, weights that are put back."""
    net = nn.Linear(4, 3, bias=False).double()
    scene = scene_of(net)
    extension = Movement(zeros=0.5, start=0.9, until=1.0, scope="global").begin(scene)
    weight, g = net.weight.detach().clone(), torch.randn(3, 4).double()
    for update in range(7):
        net.weight.grad = None
        extension.before_forward(moment(update, 100, rate=0.2))
        (net.weight * g).sum().backward()
        extension.after_backward(moment(update, 100, rate=0.2))
    expected = -0.2 * 7 * g * weight
    torch.testing.assert_close(extension.scores["weight"], expected)
    chosen = extension.renewed(moment(99, 100))["weight"]
    lowest = np.argsort(expected.numpy().ravel())[:6]
    assert sorted((~chosen).flatten().nonzero()[:, 0].tolist()) == sorted(lowest.tolist())


def test_movement_reaches_scores_behind_the_mask():
    net = nn.Linear(4, 3, bias=False).double()
    extension = Movement(zeros=0.5).begin(scene_of(net))
    extension.masks["weight"][:] = False
    g = torch.randn(3, 4).double()
    extension.before_forward(moment(rate=0.2))
    assert not net.weight.any()
    (net.weight * g).sum().backward()
    extension.after_backward(moment(rate=0.2))
    assert not net.weight.grad.any()  # the weight itself waits
    torch.testing.assert_close(extension.scores["weight"], -0.2 * g * net.weight.detach())


@pytest.mark.parametrize("kind", [RigL, SparseEvolutionaryTraining])
def test_layers_keep_their_count_and_what_grew_was_not_just_dropped(kind):
    net, x, y = _pair()
    scene = scene_of(net, momentum=0.9)
    extension = kind(zeros=0.6, drop=0.5, until=1.0, every=1).begin(scene)
    counts = {n: int(m.sum()) for n, m in extension.masks.items()}
    assert sum(counts.values()) == 72 - round(0.6 * 72)
    grown_ever = 0
    for update in range(12):
        at = moment(update, 12)
        before = {n: m.clone() for n, m in extension.masks.items()}
        optimizer = scene.optimizer
        optimizer.zero_grad()
        nn.functional.mse_loss(net(x), y).backward()
        dense = {n: p.grad.clone() for n, p in net.named_parameters()}
        extension.after_backward(at)
        optimizer.step()
        moved = {n: p.detach().clone() for n, p in net.named_parameters()}
        extension.after_step(at)
        progress = (update + 1) / 12
        for name, was in before.items():
            now, weight = extension.masks[name], dict(net.named_parameters())[name]
            assert int(now.sum()) == counts[name]
            dropped, grown = was & ~now, now & ~was
            expected = round(0.25 * (1 + math.cos(math.pi * progress)) * counts[name])
            assert int(dropped.sum()) == int(grown.sum()) == min(expected, int((~was).sum()))
            grown_ever += int(grown.sum())
            if dropped.any():  # the smallest of those that were there
                kept = was & now
                assert moved[name][dropped].abs().max() <= moved[name][kept].abs().min()
            if kind is RigL and grown.any():
                rest = ~was & ~now
                assert dense[name][grown].abs().min() >= dense[name][rest].abs().max()
            assert not weight[~now].any() and not weight[grown].any()
            assert not optimizer.state[weight]["momentum_buffer"][grown].any()
    assert grown_ever > 10


def test_rigl_begins_with_densities_of_erdos_renyi_kernels():
    """density proportional to (sum of sizes) / (product of sizes), clipped at 1, by bisection."""
    net = small_net()
    extension = RigL(zeros=0.6).begin(scene_of(net, structure_of_small_net()))
    shapes = {n: tuple(m.shape) for n, m in extension.masks.items()}
    raw = {n: sum(s) / math.prod(s) for n, s in shapes.items()}
    low, high = 0.0, 1e6
    for _ in range(200):
        c = (low + high) / 2
        kept = sum(min(1.0, c * raw[n]) * math.prod(s) for n, s in shapes.items())
        low, high = (c, high) if kept < 0.4 * 864 else (low, c)
    for name, mask in extension.masks.items():
        assert abs(int(mask.sum()) - min(1.0, c * raw[name]) * mask.numel()) <= 1
        assert not dict(net.named_parameters())[name][~mask].any()


def test_soft_filters_are_zero_after_an_epoch_and_live_again_within_it():
    net, seen = small_net(), []

    def look(report) -> None:
        seen.append((report.epoch, report.batch, net[0].weight.detach().flatten(1).norm(dim=1)))

    history = trained(SoftFilters(units=0.5, until=0.7), net, on_step=look)
    structure = structure_of_small_net()
    second, third = (next(n for e, b, n in seen if (e, b) == (epoch, 1)) for epoch in (2, 3))
    assert (second > 0).all()  # what was zero after the first epoch has moved
    assert not third[list(history.remove["0"])].any() and (third > 0).sum() == 4  # it is decided
    assert sum(map(len, history.remove.values())) == 4 + 3  # half of each group
    images = blobs(16).tensors[0]
    plan = sc.PruningPlan(remove=history.remove)
    pruned = sc.apply(net.eval(), plan, images, structure=structure)
    assert sc.verify(net, pruned, plan, images, structure=structure, strict=True).ok
    with torch.no_grad():  # the hard cut is the model that was validated
        torch.testing.assert_close(pruned.eval()(images), net(images), rtol=1e-4, atol=1e-5)


def test_soft_filters_zero_what_makes_a_unit_right_after_the_epoch():
    net = small_net()
    scene = scene_of(net, structure_of_small_net())
    extension = SoftFilters(units=0.5).begin(scene)
    norms = net[0].weight.detach().flatten(1)
    by_hand = torch.cat([norms, net[0].bias.detach()[:, None]], 1).norm(dim=1)
    extension.after_epoch(moment(epoch=0, epochs=4))
    gone = sorted(by_hand.argsort()[:4].tolist())
    assert extension.remove["0"] == tuple(gone)
    assert not net[0].weight[gone].any() and not net[0].bias[gone].any()
    rest = [u for u in range(6) if u not in extension.remove["4"]]
    assert net[1].weight.all() and net[4].weight[rest][:, gone].all()  # what reads the unit waits


def test_without_a_structure_all_matrices_are_masked_and_with_one_those_of_layers():
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places = nn.Parameter(torch.randn(4, 6))
            self.layer = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x + self.places).mean(1)

    net, x = Positions(), torch.randn(20, 4, 6)
    data = TensorDataset(x, torch.randint(3, (20,)))
    structure = sc.trace(net, x[:2])
    wanted = [set(), {"layer.weight"}]
    for given, names in zip((None, structure), wanted, strict=True):
        history = finetune(
            Positions(), data, settings_of(1), methods=[Gradual(zeros=0.5)], structure=given
        )  # fmt: skip
        assert set(history.masks) == (names or {"places", "layer.weight"})


def test_the_model_of_the_best_epoch_is_masked_and_later_trainings_hold_it():
    net = small_net()
    history = trained(Gradual(zeros=0.8), net)
    again = finetune(net, blobs(96), settings_of(1), masks=history.masks)
    assert again.kept == 1
    for name, mask in history.masks.items():
        assert not model_tensors(net)[name][~mask].any()

"""Criteria of gradients, of batches and of single samples, and of what a training kept."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import secateur as sc
from criterion_cases import (
    BruteForce,
    CriterionTests,
    ElementTests,
    case,
    loss,
    owned,
    owned_values,
)
from gradient_cases import all_batches, each_sample, net_of, small, total_loss
from oracle import call, randomise
from secateur.criteria import CRITERIA
from secateur.criteria.movement import Movement
from secateur.protocols import Statistics
from secateur.training.statistics import collect
from zoo import ZOO


class TestGradient(BruteForce, ElementTests):
    name = "gradient"

    def of_unit(self, group, unit, statistics):
        batches = all_batches(net_of(statistics, self.nets))
        return sum(float(owned_values(group, unit, g).abs().sum()) for g in batches) / len(batches)

    def test_finite_differences_say_the_same(self):
        model, structure, batches = small()
        statistics = collect(model, structure, batches[:1], needs={"gradients"})
        for name in statistics.gradients:
            scores = self.elements(name, statistics)
            for place in range(0, scores.numel(), 3):
                values = []
                for step in (1e-5, -1e-5):
                    moved = copy.deepcopy(model)
                    with torch.no_grad():
                        moved.get_parameter(name).reshape(-1)[place] += step
                    values.append(total_loss(moved, batches[:1]).item())
                slope = abs(values[0] - values[1]) / 2e-5
                assert abs(slope - float(scores.reshape(-1)[place])) < 1e-8


class TestTaylorAbsElements(ElementTests):
    name = "taylor-abs"

    def test_units_sum_up_elements(self):
        this = case("conv_bn_relu")
        for group in this.structure.groups:
            scores = CRITERIA.get(self.name)()(group, this.statistics)
            values = {m.tensor: self.elements(m.tensor, this.statistics) for m in group.members
                      if m.role != "stat"}  # fmt: skip
            for unit in range(group.size):
                assert float(owned_values(group, unit, values).sum()) == pytest.approx(
                    float(scores[unit])
                )


class TestSnip(BruteForce, ElementTests):
    name = "snip"

    def of_unit(self, group, unit, statistics):
        net = net_of(statistics, self.nets)
        batches = all_batches(net)
        sizes = {
            name: (p.detach() * sum(g[name] for g in batches) / len(batches)).abs()
            for name, p in case(net).model.named_parameters()
        }
        whole = sum(float(sizes[name].sum()) for name in statistics.gradients)
        return float(owned_values(group, unit, sizes).sum()) / whole

    def test_elements_of_all_tensors_sum_to_one(self):
        for net in self.nets:
            statistics = case(net).statistics
            total = sum(float(self.elements(n, statistics).sum()) for n in statistics.gradients)
            assert total == pytest.approx(1)

    def test_it_is_the_slope_along_a_factor_on_the_weight(self):
        model, structure, batches = small()
        names = [name for name, _ in model.named_parameters()]
        statistics = collect(model, structure, batches, needs={"gradients"}, parameters=names)
        slopes = {}
        for name in names:
            parameters = {n: p.detach() for n, p in model.named_parameters()}
            factor = torch.ones_like(parameters[name]).requires_grad_()
            parameters[name] = parameters[name] * factor
            value = torch.stack([
                functional.cross_entropy(torch.func.functional_call(model, parameters, (x,)), y)
                for x, y in batches
            ]).mean()  # fmt: skip
            slopes[name] = torch.autograd.grad(value, factor)[0].abs()
        whole = sum(float(slope.sum()) for slope in slopes.values())
        for name in names:
            torch.testing.assert_close(self.elements(name, statistics), slopes[name] / whole)


class TestFisher(BruteForce, ElementTests):
    name = "fisher"
    nets = ("conv_bn_relu", "conv_flatten", "basic_blocks", "elman_loop")

    def of_unit(self, group, unit, statistics):
        net = net_of(statistics, self.nets)
        weights = {n: p.detach() for n, p in case(net).model.named_parameters()}
        squares = []
        for gradients in each_sample(net):
            slopes = {n: weights[n] * g for n, g in gradients.items()}
            squares.append(float(owned_values(group, unit, slopes, ("in",)).sum()) ** 2)
        return sum(squares) / len(squares) / 2

    def test_it_is_the_squared_sum_of_activation_times_gradient(self):
        """By the activations themselves, of a layer that two others read."""
        body, left, right = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 2, 1), nn.Conv2d(5, 2, 3)

        class Fork(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.left, self.right = body, left, right

            def forward(self, x):
                a = functional.relu(self.body(x))
                if a.requires_grad and not torch.compiler.is_exporting():
                    a.retain_grad()
                self.seen = a
                return self.left(a).sum((2, 3)) + self.right(a).sum((2, 3))

        model = randomise(Fork(), 0)
        x, y = torch.randn(6, 2, 6, 6).double(), torch.randint(0, 2, (6,))
        structure = sc.trace(model, x)
        statistics = collect(model, structure, [(x, y)], needs={"products"})
        expected = torch.zeros(5, dtype=torch.float64)
        for i in range(len(x)):
            functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
            expected += (model.seen * model.seen.grad).sum((0, 2, 3)).detach().square() / 12
        group = structure.group("body")
        torch.testing.assert_close(self.scores(group, statistics), expected)
        taylor = CRITERIA.get("taylor-activation")()(group, statistics)
        assert (taylor.square() / 2 <= expected * (1 + 1e-9)).all()  # Jensen

    def test_labels_are_said_to_be_missing(self):
        model, structure, batches = small()
        bare = [(inputs, None) for inputs, _ in batches]
        for needs in ({"gradients"}, {"products"}, {"curvature"}, {"omissions"}):
            with pytest.raises(sc.InputError, match="need labels, and the calibration batches"):
                collect(model, structure, bare, needs=needs)


class TestTaylorActivation(BruteForce):
    name = "taylor-activation"
    nets = ("conv_bn_relu", "conv_flatten", "basic_blocks", "elman_loop")

    def of_unit(self, group, unit, statistics):
        net = net_of(statistics, self.nets)
        weights = {n: p.detach() for n, p in case(net).model.named_parameters()}
        sums = [
            owned_values(group, unit, {n: weights[n] * g for n, g in gradients.items()}, ("in",))
            for gradients in each_sample(net)
        ]
        return sum(abs(float(one.sum())) for one in sums) / len(sums)


class TestMovement(CriterionTests, ElementTests):
    name = "movement"
    signed = True

    def test_weights_that_grow_stay(self):
        """Constant gradients: after T updates the sum is -T w g."""
        w = torch.tensor([1.0, -1.0, 2.0, -0.5]).double()
        g = torch.tensor([0.3, 0.3, -0.1, 0.2]).double()
        sums = torch.zeros(4).double()
        for _ in range(10):
            sums -= w * g
        scores = self.elements("w", Statistics({"w": w}, movement={"w": sums}))
        torch.testing.assert_close(scores, -10 * w * g)
        grows = (w - 0.01 * g).abs() > w.abs()
        assert ((scores > 0) == grows).all()

    def test_units_sum_up_and_sums_can_be_given(self):
        this = case("conv_bn_relu")
        group = this.structure.groups[0]
        sums = dict(this.statistics.movement)
        scores = Movement(sums=sums)(group, Statistics(this.statistics.tensors))
        for unit in range(group.size):
            assert float(owned_values(group, unit, sums).sum()) == pytest.approx(
                float(scores[unit])
            )


class TestLeaveOneOut(BruteForce):
    name = "leave-one-out"

    def of_unit(self, group, unit, statistics):
        this = case(net_of(statistics, self.nets))
        model = copy.deepcopy(this.model)
        tensors = dict(model.named_parameters()) | dict(model.named_buffers())
        masks = owned(group, unit, {n: t.shape for n, t in tensors.items()},
                      ("out", "in", "affine", "stat"))  # fmt: skip
        with torch.no_grad():
            before = [float(loss(call(model, x), y)) for x, y in this.batches]
            for name, mask in masks.items():
                tensors[name][mask] = 0
            after = [float(loss(call(model, x), y)) for x, y in this.batches]
        return max(0.0, sum(after) / len(after) - sum(before) / len(before))

    def test_a_loop_over_units_says_the_same(self):
        """But for the ramp that orders what is no worse."""
        for group, statistics in self.groups():
            expected = [self.of_unit(group, unit, statistics) for unit in range(group.size)]
            rises = statistics.omissions[group.name]
            torch.testing.assert_close(
                self.scores(group, statistics), torch.tensor(expected).double(),
                rtol=1e-6, atol=2e-9 * float(rises.abs().max()),
            )  # fmt: skip

    def test_what_is_better_without_leaves_first_in_its_order(self):
        rises = torch.tensor([0.5, -0.2, 0.1, -0.7, 0.0]).double()
        scores = self.scores(sc.Group("g", 5, ()), Statistics({}, omissions={"g": rises}))
        assert scores.argsort().tolist() == rises.argsort().tolist() == [3, 1, 4, 2, 0]
        assert (scores >= 0).all() and float(scores[4]) < 1e-8

    def test_any_figure_of_merit_will_do(self):
        model, structure, batches = small(hidden=6)
        with torch.no_grad():
            model[2].weight[:, 4] = 0

        def mistakes(outputs, targets):
            return (outputs.argmax(1) != targets).double().mean()

        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        statistics = collect(model, structure, batches, mistakes, {"omissions"})
        scores = self.scores(structure.groups[0], statistics)
        assert float(scores[4]) < 1e-9 and scores.max() > 0
        steps = statistics.omissions[structure.groups[0].name] * 10
        torch.testing.assert_close(steps, steps.round())  # of 10 samples
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_products_of_what_no_layer_reads_are_along_what_produces_it():
    """Dimensions of queries and keys: the mean of the slopes along either, by differences."""
    entry = ZOO["separate_attention"]
    torch.manual_seed(0)
    model = randomise(entry.build(), 1)
    (x,) = entry.inputs()
    x = x.double()
    structure = sc.trace(model, x)

    def square(outputs, targets):
        return outputs.square().sum()

    statistics = collect(model, structure, [(x, None)], square, {"products"})
    group = structure.group("q/2")
    layers = {m.tensor.rpartition(".")[0] for m in group.members}
    assert layers == {"q", "k"} and not any(m.role == "in" for m in group.members)
    for unit in range(group.size):
        slopes = []
        for layer in ("q", "k"):
            values = []
            for step in (1e-6, -1e-6):
                moved = copy.deepcopy(model)
                with torch.no_grad():
                    for member in group.members:
                        if member.tensor.startswith(f"{layer}."):
                            index = torch.as_tensor(member.index[unit])
                            moved.get_parameter(member.tensor)[index] *= 1 + step
                values.append(square(moved(x[:1]), None).item())
            slopes.append((values[0] - values[1]) / 2e-6)
        found = float(statistics.products[group.name][0, unit])
        assert found == pytest.approx(sum(slopes) / 2, rel=1e-5, abs=1e-8)


def test_a_unit_without_which_there_is_no_loss_is_said():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x, y = torch.rand(5, 3), torch.rand(5, 2)

    def quotient(outputs, targets):
        return (outputs / model[0].weight.abs().sum(1).min()).sum()

    with pytest.raises(sc.InputError, match=r"without unit 0 of group '0' there is no loss"):
        collect(model, sc.trace(model, x), [(x, y)], quotient, {"omissions"})

"""Criteria of second derivatives: exact cases, finite differences, direct inverses, brute force."""

from __future__ import annotations

import copy
from itertools import combinations

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
    owned_values,
)
from gradient_cases import each_sample, net_of, small, total_loss
from secateur.criteria import CRITERIA
from secateur.criteria.chita import Chita, fit, largest_curvature
from secateur.criteria.woodfisher import WoodFisher, inverse
from secateur.protocols import Statistics
from secateur.training.statistics import collect


class TestGrasp(CriterionTests, ElementTests):
    name = "grasp"
    signed = True

    def test_on_a_quadratic_it_is_known(self):
        """L = 1/2 w^T A w: g = A w, H = A, and the paper's S = -w * (A A w)."""
        draw = torch.Generator().manual_seed(0)
        root = torch.randn(6, 6, generator=draw).double()
        square = root @ root.T
        w = torch.randn(6, generator=draw).double()
        model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 1, bias=False)).double()
        with torch.no_grad():
            model[0].weight.copy_(torch.eye(6))
            model[1].weight.copy_(w[None])
        structure = sc.trace(model, torch.randn(2, 6).double())

        def quadratic(outputs, targets):
            row = model[1].weight[0]
            return 0.5 * row @ square @ row + 0 * outputs.sum()

        batches = [(torch.randn(2, 6).double(), None)] * 3
        statistics = collect(model, structure, batches, quadratic, {"curvature"})
        paper = -w * (square @ square @ w)
        torch.testing.assert_close(self.elements("1.weight", statistics)[0], -paper)

    def test_it_is_what_the_squared_gradient_loses(self):
        """To first order, by central differences of |g|² along each weight."""
        model, structure, batches = small()
        names = [name for name, _ in model.named_parameters()]
        statistics = collect(model, structure, batches, needs={"curvature"}, parameters=names)

        def flow(moved):
            value = total_loss(moved, batches)
            found = torch.autograd.grad(value, [*moved.parameters()])
            return float(sum(g.square().sum() for g in found))

        for name in names:
            scores = self.elements(name, statistics)
            for place in range(0, scores.numel(), 2):
                values = []
                for step in (1e-4, -1e-4):
                    moved = copy.deepcopy(model)
                    with torch.no_grad():
                        moved.get_parameter(name).reshape(-1)[place] *= 1 + step
                    values.append(flow(moved))
                slope = (values[0] - values[1]) / 2e-4
                assert abs(slope / 2 - float(scores.reshape(-1)[place])) < 1e-6

    def test_several_batches_count_as_one(self):
        model, structure, batches = small()
        joined = [(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]))]
        parts = collect(model, structure, batches, needs={"curvature"}).curvature
        whole = collect(model, structure, joined, needs={"curvature"}).curvature
        for name in whole:
            torch.testing.assert_close(parts[name], whole[name])


class TestOptimalBrainDamage(BruteForce, ElementTests):
    name = "obd"

    def of_unit(self, group, unit, statistics):
        net = net_of(statistics, self.nets)
        weights = {n: p.detach() for n, p in case(net).model.named_parameters()}
        gradients = each_sample(net)
        values = {
            n: weights[n].square() * sum(g[n].square() for g in gradients) / len(gradients) / 2
            for n in weights
        }
        return float(owned_values(group, unit, values).sum())

    def test_of_logistic_regression_it_is_the_exact_hessian(self):
        """Labels as often as the model says: 3 of 4 times where it says 3/4."""
        x = torch.tensor([[1.0, -0.5], [0.2, 2.0], [-1.5, 0.3]]).double()
        positive = torch.tensor([3, 1, 2])  # of 4
        chances = positive / 4
        w = torch.linalg.lstsq(x[:2], chances[:2].logit()[:, None].double()).solution[:, 0]
        third = x[2].clone()  # moved along w until the model says one half
        third -= (third @ w) / (w @ w) * w
        x[2] = third
        inputs = x.repeat_interleave(4, 0)
        targets = torch.cat([torch.tensor([1.0] * n + [0.0] * (4 - n)) for n in positive.tolist()])
        model = nn.Sequential(nn.Identity(), nn.Linear(2, 1, bias=False)).double()
        with torch.no_grad():
            model[1].weight.copy_(w[None])

        def logistic(outputs, labels):
            return functional.binary_cross_entropy_with_logits(outputs[:, 0], labels)

        structure = sc.trace(model, inputs)
        batches = [(inputs[:6], targets[:6].double()), (inputs[6:], targets[6:].double())]
        statistics = collect(model, structure, batches, logistic, {"squares"},
                             parameters=["1.weight"])  # fmt: skip
        hessian = torch.autograd.functional.hessian(
            lambda row: functional.binary_cross_entropy_with_logits(inputs @ row, targets.double()),
            w,
        )
        assert isinstance(hessian, torch.Tensor)
        expected = hessian.diagonal() * w.square() / 2
        torch.testing.assert_close(self.elements("1.weight", statistics)[0], expected)

    def test_the_mean_comes_after_the_square(self):
        """Batches of any size give the same."""
        model, structure, batches = small()
        joined = [(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]))]
        parts = collect(model, structure, batches, needs={"squares", "products"})
        whole = collect(model, structure, joined, needs={"squares", "products"})
        for name in whole.squares:
            torch.testing.assert_close(parts.squares[name], whole.squares[name])
        assert torch.equal(parts.products["0"], whole.products["0"])


class TestWoodFisher(CriterionTests, ElementTests):
    name = "woodfisher"

    def test_one_sample_after_the_other_gives_the_inverse(self):
        draw = torch.Generator().manual_seed(0)
        gradients = torch.randn(3, 20, 7, generator=draw).double()
        found = inverse(gradients, 0.1)
        for block, own in zip(gradients, found, strict=True):
            direct = torch.linalg.inv(0.1 * torch.eye(7).double() + block.T @ block / 20)
            torch.testing.assert_close(own, direct, rtol=1e-10, atol=1e-12)

    def test_elements_are_those_of_the_direct_inverse(self):
        criterion = WoodFisher(block=7, damping=0.05)
        this = case("conv_flatten")
        for name in ("0.weight", "0.bias"):
            samples = this.statistics.samples[name].flatten(1)
            w = this.statistics.tensors[name].reshape(-1)
            ridge = 0.05 * float(samples.square().mean())
            expected = []
            for start in range(0, len(w), 7):
                some = samples[:, start : start + 7]
                fisher = some.T @ some / len(some) + ridge * torch.eye(some.shape[1]).double()
                expected.append(torch.linalg.inv(fisher).diagonal())
            scores = criterion.elements(name, this.statistics).reshape(-1)
            torch.testing.assert_close(scores, w.square() / (2 * torch.cat(expected)))

    def test_blocks_of_one_are_obd_but_for_the_damping(self):
        this = case("conv_bn_relu")
        name = "5.weight"
        undamped = WoodFisher(block=1, damping=1e-9).elements(name, this.statistics)
        obd = CRITERIA.get("obd")().elements(name, this.statistics)
        torch.testing.assert_close(undamped, obd, rtol=1e-5, atol=1e-9 * float(obd.max()))

    def test_gradients_are_kept_as_far_as_memory_goes(self):
        model, structure, batches = small()
        one = collect(model, structure, batches, needs={"samples"}, memory=0).samples
        assert {len(some) for some in one.values()} == {1}
        names = sum(p.numel() for n, p in model.named_parameters() if n in one)
        some = collect(model, structure, batches, needs={"samples"}, memory=8 * names * 4).samples
        assert {len(each) for each in some.values()} == {4}

    def test_what_cannot_be_is_said(self):
        with pytest.raises(sc.InputError, match="block is 0"):
            WoodFisher(block=0)


class TestChita(CriterionTests, ElementTests):
    name = "chita"
    nets = ("conv_flatten",)

    def test_scores_are_ranks(self):
        for name, statistics in self.tensors():
            scores = self.elements(name, statistics).reshape(-1)
            ranks = (scores * len(scores)).round().long().sort().values
            assert torch.equal(ranks, torch.arange(1, len(scores) + 1))

    def test_of_uncorrelated_gradients_of_one_size_it_is_magnitude(self):
        w = torch.tensor([3.0, -1.0, 0.5, 2.0, -4.0, 0.1]).double()
        statistics = Statistics({"w": w}, samples={"w": 6**0.5 * torch.eye(6).double()})
        order = Chita().elements("w", statistics).argsort()
        assert order.tolist() == w.abs().argsort().tolist()

    def test_the_fit_is_near_the_best_and_no_worse_than_magnitude(self):
        """Against all subsets of 8 weights, their values solved."""
        draw = torch.Generator().manual_seed(0)
        hits = 0  # more than magnitude has
        for _ in range(20):
            a = (
                torch.randn(12, 8, generator=draw).double()
                @ torch.randn(8, 8, generator=draw).double()
            )
            w0 = torch.randn(8, generator=draw).double()
            ridge, keep = 0.01 * float(a.square().mean()), 4
            inside = torch.ones(8, dtype=torch.bool)

            def cost(w, a=a, w0=w0, ridge=ridge):
                change = w - w0
                return float((a @ change).square().sum() / 24 + ridge * change.square().sum() / 2)

            magnitude = torch.where(w0.abs() >= w0.abs().sort().values[-keep], w0, 0.0)
            found = cost(fit(a, w0, w0, inside, keep, ridge, largest_curvature(a, ridge), 200))
            assert found <= cost(magnitude) * (1 + 1e-9)
            hessian = a.T @ a / 12 + ridge * torch.eye(8).double()
            best = min(subset_cost(hessian, w0, subset) for subset in combinations(range(8), keep))
            assert found >= best * (1 - 1e-9)
            hits += (found < 1.01 * best) - (cost(magnitude) < 1.01 * best)
        assert hits > 0

    def test_what_cannot_be_is_said(self):
        with pytest.raises(sc.InputError, match="steps 0"):
            Chita(steps=0)


def subset_cost(hessian, w0, subset) -> float:
    """1/2 of the quadratic with the others at zero, and those of the subset at their best."""
    gone = [i for i in range(len(w0)) if i not in subset]
    inverse_ = torch.linalg.inv(hessian)
    part = torch.linalg.inv(inverse_[gone][:, gone])
    return float(w0[gone] @ part @ w0[gone]) / 2


def test_operations_without_second_derivatives_are_said():
    model = nn.Sequential(nn.Linear(3, 4), nn.Hardsigmoid(), nn.Linear(4, 2))
    x, y = torch.randn(5, 3), torch.randint(0, 2, (5,))
    with pytest.raises(sc.InputError, match="PyTorch has none of an operation of this model"):
        collect(model, sc.trace(model, x), [(x, y)], needs={"curvature"})

"""Criteria of first and second derivatives, and of what a training kept."""

from __future__ import annotations

import copy
from functools import cache

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
from oracle import call, randomise
from secateur.criteria import CRITERIA
from secateur.criteria.chita import Chita, fit
from secateur.criteria.movement import Movement
from secateur.criteria.woodfisher import WoodFisher, inverse
from secateur.protocols import Statistics
from secateur.training.statistics import collect
from zoo import ZOO


def gradients_of(model, inputs, targets) -> dict[str, torch.Tensor]:
    """By ``backward``, on a copy."""
    model = copy.deepcopy(model)
    loss(call(model, inputs), targets).backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in model.named_parameters()
    }


@cache
def all_batches(net: str) -> list[dict[str, torch.Tensor]]:
    return [gradients_of(case(net).model, *batch) for batch in case(net).batches]


@cache
def each_sample(net: str) -> list[dict[str, torch.Tensor]]:
    found = []
    for inputs, targets in case(net).batches:
        for i in range(len(targets)):
            one = tuple(x[i : i + 1] for x in inputs)
            found.append(gradients_of(case(net).model, one, targets[i : i + 1]))
    return found


def net_of(statistics, nets) -> str:
    return next(n for n in nets if case(n).statistics is statistics)


def small(hidden: int = 3):
    """A net of few weights in float64, and labelled batches."""
    model = randomise(nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 3)), 0)
    draw = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(5, 4, generator=draw).double(), torch.randint(0, 3, (5,), generator=draw))
        for _ in range(2)
    ]
    return model, sc.trace(model, batches[0][0]), batches


def total_loss(model, batches) -> torch.Tensor:
    losses = [functional.cross_entropy(model(inputs), targets) for inputs, targets in batches]
    return torch.stack(losses).mean()


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
    nets = ("conv_bn_relu", "conv_flatten")

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
            found = cost(fit(a, w0, w0, inside, keep, ridge, 200))
            assert found <= cost(magnitude) * (1 + 1e-9)
            hessian = a.T @ a / 12 + ridge * torch.eye(8).double()
            best = min(subset_cost(hessian, w0, subset) for subset in subsets(8, keep))
            assert found >= best * (1 - 1e-9)
            hits += (found < 1.01 * best) - (cost(magnitude) < 1.01 * best)
        assert hits > 0

    def test_what_cannot_be_is_said(self):
        with pytest.raises(sc.InputError, match="steps 0"):
            Chita(steps=0)


def subsets(count: int, keep: int):
    from itertools import combinations

    return combinations(range(count), keep)


def subset_cost(hessian, w0, subset) -> float:
    """1/2 of the quadratic with the others at zero, and those of the subset at their best."""
    gone = [i for i in range(len(w0)) if i not in subset]
    inverse_ = torch.linalg.inv(hessian)
    part = torch.linalg.inv(inverse_[gone][:, gone])
    return float(w0[gone] @ part @ w0[gone]) / 2


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


class TestSynapticFlow(CriterionTests, ElementTests):
    name = "synflow"
    nets = ("conv_bn_relu", "conv_flatten", "basic_blocks", "elman_loop")

    def chain(self, bias: bool):
        layers = [
            nn.Conv2d(2, 5, 3, padding=1, bias=bias), nn.BatchNorm2d(5), nn.ReLU(),
            nn.MaxPool2d(2), nn.Conv2d(5, 4, 3, bias=bias), nn.ReLU(), nn.Flatten(),
            nn.Linear(16, 7, bias=bias), nn.ReLU(), nn.Linear(7, 3, bias=bias),
        ]  # fmt: skip
        model = randomise(nn.Sequential(*layers), 0)
        with torch.no_grad():
            model[1].bias.zero_()
        return model, sc.trace(model, torch.randn(2, 2, 8, 8).double())

    def test_it_is_conserved_from_layer_to_layer(self):
        model, structure = self.chain(bias=False)
        names = [name for name, _ in model.named_parameters()]
        statistics = collect(model, structure, needs={"flow"}, parameters=names)
        sums = {
            name: float(self.elements(name, statistics).sum()) for name in names if name != "1.bias"
        }
        assert len(sums) == 5
        for total in sums.values():
            assert total == pytest.approx(sums["0.weight"], rel=1e-12)

    def test_bounded_activations_do_not_stop_it(self):
        model = nn.Sequential(nn.Linear(3, 6), nn.ReLU6(), nn.Linear(6, 5), nn.Hardtanh(),
                              nn.Linear(5, 2))  # fmt: skip
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(50.0)
        flow = collect(model, sc.trace(model, torch.randn(2, 3)), needs={"flow"}).flow
        for name in ("0.weight", "2.weight", "4.weight"):
            assert float(flow[name].sum()) == pytest.approx(3 * 6 * 5 * 2 * 50.0**3)

    def test_what_enters_a_unit_leaves_it(self):
        """Of the 7 units between the two Linear layers."""
        model, structure = self.chain(bias=False)
        names = [name for name, _ in model.named_parameters()]
        statistics = collect(model, structure, needs={"flow"}, parameters=names)
        enters = self.elements("7.weight", statistics).sum(1)
        torch.testing.assert_close(enters, self.elements("9.weight", statistics).sum(0))

    def test_it_is_the_gradient_of_the_absolute_net(self):
        model, structure = self.chain(bias=True)
        statistics = collect(model, structure, needs={"flow"})
        absolute = copy.deepcopy(model).eval()
        with torch.no_grad():
            for parameter in absolute.parameters():
                parameter.abs_()
            for layer in absolute:
                if getattr(layer, "bias", None) is not None:
                    layer.bias.zero_()
            absolute[1].running_mean.zero_()
        absolute(torch.ones(1, 2, 8, 8).double()).sum().backward()
        for name, parameter in absolute.named_parameters():
            if name in statistics.flow:
                expected = (parameter * parameter.grad).detach()
                torch.testing.assert_close(self.elements(name, statistics), expected)

    def test_the_model_and_its_data_do_not_matter_and_stay(self):
        model, structure = self.chain(bias=True)
        model.train()
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        first = collect(model, structure, needs={"flow"}).flow
        assert all(torch.equal(model.state_dict()[name], state[name]) for name in state)
        assert model.training and all(p.requires_grad for p in model.parameters())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.neg_()
        again = collect(model, structure, needs={"flow"}).flow
        assert all(torch.equal(first[name], again[name]) for name in first)

    def test_queries_and_keys_carry_none(self):
        """An input of ones looks alike at every place, so that attention has nothing to choose."""
        this = case("packed_attention")
        group = this.structure.group("attention.qkv/12")
        assert float(self.scores(group, this.statistics).min()) > 0
        rows = self.elements("attention.qkv.weight", this.statistics)
        assert float(rows[:24].max()) < 1e-12 < float(rows[24:].min())

    def test_deep_nets_do_not_overflow(self):
        layers = [nn.Linear(64, 64) for _ in range(40)]
        model = nn.Sequential(*layers)
        with torch.no_grad():
            for layer in layers:
                layer.weight.fill_(10.0)
        structure = sc.trace(model, torch.randn(2, 64))
        statistics = collect(model, structure, needs={"flow"})
        assert all(bool(torch.isfinite(t).all()) for t in statistics.flow.values())
        assert float(statistics.flow["0.weight"].max()) > 1e38  # beyond float32


class TestLeaveOneOut(BruteForce):
    name = "leave-one-out"
    signed = True

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
        return sum(after) / len(after) - sum(before) / len(before)

    def test_any_figure_of_merit_will_do(self):
        model, structure, batches = small(hidden=6)
        with torch.no_grad():
            model[2].weight[:, 4] = 0

        def mistakes(outputs, targets):
            return (outputs.argmax(1) != targets).double().mean()

        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        statistics = collect(model, structure, batches, mistakes, {"omissions"})
        scores = self.scores(structure.groups[0], statistics)
        assert float(scores[4]) == 0 and scores.abs().max() > 0
        steps = scores * 10
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


def test_operations_without_second_derivatives_are_said():
    model = nn.Sequential(nn.Linear(3, 4), nn.Hardsigmoid(), nn.Linear(4, 2))
    x, y = torch.randn(5, 3), torch.randint(0, 2, (5,))
    with pytest.raises(sc.InputError, match="PyTorch has none of an operation of this model"):
        collect(model, sc.trace(model, x), [(x, y)], needs={"curvature"})


def test_a_unit_without_which_there_is_no_loss_is_said():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x, y = torch.rand(5, 3), torch.rand(5, 2)

    def quotient(outputs, targets):
        return (outputs / model[0].weight.abs().sum(1).min()).sum()

    with pytest.raises(sc.InputError, match=r"without unit 0 of group '0' there is no loss"):
        collect(model, sc.trace(model, x), [(x, y)], quotient, {"omissions"})

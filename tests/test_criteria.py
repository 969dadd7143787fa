"""Every criterion against loops over single units, and what its definition promises."""

from __future__ import annotations

import copy
import dataclasses
import importlib

import numpy as np
import pytest
import torch
from torch import nn

import secateur as sc
from criterion_cases import (
    NETS,
    BruteForce,
    Case,
    CriterionTests,
    ElementTests,
    case,
    generator,
    loss,
    owned,
    owned_values,
    with_generator,
)
from oracle import call, randomise
from secateur.criteria import CRITERIA
from secateur.protocols import Statistics
from secateur.repair.tracing import traces
from secateur.training.statistics import collect


class TestL1(BruteForce):
    name = "l1"

    def of_unit(self, group, unit, statistics):
        return float(owned_values(group, unit, statistics.tensors).abs().sum())


class TestL2(BruteForce):
    name = "l2"

    def of_unit(self, group, unit, statistics):
        return float(owned_values(group, unit, statistics.tensors).square().sum().sqrt())

    def test_scores_grow_with_the_weights(self):
        group, statistics = next(self.groups())
        larger = Statistics({name: -3 * w for name, w in statistics.tensors.items()})
        torch.testing.assert_close(
            self.scores(group, larger), 3 * self.scores(group, statistics), rtol=1e-12, atol=0
        )


class TestL1Own(BruteForce):
    name = "l1-own"

    def of_unit(self, group, unit, statistics):
        return float(owned_values(group, unit, statistics.tensors, ("out",)).abs().sum())


class TestL2Own(BruteForce):
    name = "l2-own"

    def of_unit(self, group, unit, statistics):
        return float(owned_values(group, unit, statistics.tensors, ("out",)).norm())

    def test_consumers_do_not_matter(self):
        this = case("conv_flatten")
        group = this.structure.groups[0]
        consumers = {m.tensor for m in group.members if m.role == "in"}
        assert consumers
        other = {
            name: tensor * 7 if name in consumers else tensor
            for name, tensor in this.statistics.tensors.items()
        }
        assert torch.equal(
            self.scores(group, Statistics(other)), self.scores(group, this.statistics)
        )
        l2 = CRITERIA.get("l2")()
        assert not torch.allclose(l2(group, Statistics(other)), l2(group, this.statistics))


class TestFpgm(BruteForce):
    name = "fpgm"

    def of_unit(self, group, unit, statistics):
        own = owned_values(group, unit, statistics.tensors, ("out",))
        return sum(
            float((own - owned_values(group, other, statistics.tensors, ("out",))).norm())
            for other in range(group.size)
        )

    def test_equal_filters_rank_lowest(self):
        model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 1))
        randomise(model, seed=0)
        with torch.no_grad():
            model[0].weight[11] = model[0].weight[3]
        structure = sc.trace(model, torch.randn(2, 8, 5, 5, dtype=torch.float64))
        scores = self.scores(structure.groups[0], collect(model, structure))
        assert set(scores.argsort()[:2].tolist()) == {3, 11}

    def test_a_common_offset_does_not_matter(self):
        group, statistics = next(self.groups())
        moved = Statistics({name: w + 1000 for name, w in statistics.tensors.items()})
        torch.testing.assert_close(
            self.scores(group, moved), self.scores(group, statistics), rtol=1e-8, atol=0
        )


class TestBatchNormScale(BruteForce):
    name = "bn-scale"
    nets = ("conv_bn_relu", "mlp_dropout", "inverted_residual")

    def of_unit(self, group, unit, statistics):
        model = next(case(n).model for n in self.nets if case(n).statistics is statistics)
        scales = []
        for name, module in model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for member in group.members:
                    if member.tensor == f"{name}.weight":
                        scales += [
                            float(module.weight[i].detach().abs()) for i in member.index[unit]
                        ]
        return sum(scales) / len(scales)

    @pytest.mark.parametrize("net", ["conv_flatten", "prelu", "layer_norm_mlp"])
    def test_no_batch_norm_is_said(self, net):
        group = case(net).structure.groups[0]
        with pytest.raises(sc.InputError, match=rf"group '{group.name}' has none.*'l2'"):
            self.scores(group, case(net).statistics)


def batch_products(case_of: Case, group: sc.Group, unit: int) -> list[torch.Tensor]:
    """w * g of the entries of one unit, per batch, with the gradients of ``backward``."""
    result = []
    for inputs, targets in case_of.batches:
        model = copy.deepcopy(case_of.model)
        loss(call(model, inputs), targets).backward()
        weights = {name: p.detach() for name, p in model.named_parameters()}
        slopes = {
            name: torch.zeros_like(p) if p.grad is None else p.grad
            for name, p in model.named_parameters()
        }
        result.append(owned_values(group, unit, weights) * owned_values(group, unit, slopes))
    return result


class GradientTests(BruteForce):
    """First-order criteria."""

    def scored(self, statistics):
        return next(case(n) for n in self.nets if case(n).statistics is statistics)

    def test_gradients_are_missing(self):
        group, statistics = next(self.groups())
        with pytest.raises(sc.InputError, match=rf"{self.name} needs the gradients.*give data"):
            self.scores(group, Statistics(statistics.tensors))

    def test_it_says_what_it_needs(self):
        assert CRITERIA.get(self.name)().needs == {"gradients"}


class TestTaylor(GradientTests):
    name = "taylor"

    def of_unit(self, group, unit, statistics):
        products = batch_products(self.scored(statistics), group, unit)
        return sum(abs(float(p.sum())) for p in products) / len(products)

    @pytest.mark.parametrize("net", NETS)
    def test_the_slope_of_the_loss_as_a_unit_shrinks(self, net):
        this = case(net)
        inputs, targets = this.batches[0]
        statistics = collect(this.model, this.structure, [(inputs, targets)], loss, {"gradients"})
        epsilon = 1e-5
        for group in this.structure.groups:
            scores = self.scores(group, statistics)
            for unit in range(group.size):
                losses = []
                for factor in (1 + epsilon, 1 - epsilon):
                    model = copy.deepcopy(this.model)
                    parameters = dict(model.named_parameters())
                    masks = owned(group, unit, {n: p.shape for n, p in parameters.items()})
                    with torch.no_grad():
                        for name, mask in masks.items():
                            parameters[name][mask] *= factor
                        losses.append(float(loss(call(model, inputs), targets)))
                slope = abs(losses[0] - losses[1]) / (2 * epsilon)
                # central differences: the error is of the order of epsilon squared
                assert abs(float(scores[unit]) - slope) < 1e-7 * max(1, losses[0])

    def test_rescaling_a_relu_does_not_matter(self):
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
        randomise(model, seed=0)
        batch = [(torch.randn(5, 4).double(), torch.randn(5, 2).double())]
        structure = sc.trace(model, batch[0][0])
        group = structure.groups[0]
        scores = self.scores(group, collect(model, structure, batch, loss, {"gradients"}))
        with torch.no_grad():
            model[0].weight[2] *= 10
            model[0].bias[2] *= 10
            model[2].weight[:, 2] /= 10
        again = self.scores(group, collect(model, structure, batch, loss, {"gradients"}))
        torch.testing.assert_close(again, scores, rtol=1e-9, atol=1e-14)
        l2 = CRITERIA.get("l2")()(group, collect(model, structure))
        assert l2.argmax() == 2


class TestTaylorAbs(GradientTests):
    name = "taylor-abs"

    def of_unit(self, group, unit, statistics):
        products = batch_products(self.scored(statistics), group, unit)
        return sum(float(p.abs().sum()) for p in products) / len(products)

    def test_it_bounds_taylor(self):
        for group, statistics in self.groups():
            taylor = CRITERIA.get("taylor")()(group, statistics)
            assert (self.scores(group, statistics) >= taylor * (1 - 1e-12)).all()


class TestRandom(CriterionTests):
    name = "random"
    draws = True

    def test_the_seed_decides_and_the_weights_do_not(self):
        group, statistics = next(self.groups())
        criterion = CRITERIA.get("random")()
        zeros = Statistics({}, generator=generator(0))
        assert torch.equal(criterion(group, zeros), self.scores(group, statistics))
        other = criterion(group, with_generator(statistics, 1))
        assert not torch.equal(other, self.scores(group, statistics))

    def test_a_generator_is_needed(self):
        group, statistics = next(self.groups())
        with pytest.raises(sc.InputError, match="needs a generator"):
            CRITERIA.get("random")()(group, Statistics(statistics.tensors))


class TestImportanceSampling(CriterionTests):
    name = "importance-sampling"
    draws = True

    def test_scores_follow_the_units(self):
        """Norms do; what is drawn stays with the places."""
        for group, statistics in self.groups():
            order = np.random.default_rng(0).permutation(group.size)
            members = tuple(
                dataclasses.replace(member, index=member.index[order]) for member in group.members
            )
            permuted = self.scores(dataclasses.replace(group, members=members), statistics)
            norms = CRITERIA.get("l1")()(group, statistics)
            drawn = self.scores(group, statistics) / norms
            torch.testing.assert_close(permuted, norms[order] * drawn, rtol=1e-7, atol=1e-12)

    def test_the_first_to_stay_is_drawn_with_chances_like_the_norm(self):
        group, statistics = next(self.groups())
        norms = CRITERIA.get("l1")()(group, statistics)
        criterion = CRITERIA.get("importance-sampling")()
        first = torch.zeros(group.size)
        for seed in range(3000):
            first[criterion(group, with_generator(statistics, seed)).argmax()] += 1
        assert torch.allclose(first / 3000, (norms / norms.sum()).float(), atol=0.035)

    def test_a_generator_is_needed(self):
        group, statistics = next(self.groups())
        with pytest.raises(sc.InputError, match="needs a generator"):
            CRITERIA.get("importance-sampling")()(group, Statistics(statistics.tensors))


@pytest.mark.parametrize("name", ["l1-own", "l2-own", "fpgm"])
def test_groups_that_no_layer_produces_are_named(name):
    this = case("low_rank")
    group = this.structure.group("up")
    with pytest.raises(sc.InputError, match=rf"{name} scores the filters.*'up' has none"):
        CRITERIA.get(name)()(group, this.statistics)


def test_an_entry_owned_twice_counts_once():
    """A square recurrent weight is owned through both dimensions; its diagonal must count once."""
    this = case("elman_loop")
    twice = [
        g for g in this.structure.groups
        if len({m.tensor for m in g.members}) < len(g.members)
    ]  # fmt: skip
    assert twice
    ones = Statistics({n: torch.ones_like(t) for n, t in this.statistics.tensors.items()})
    scores = CRITERIA.get("l1")()(twice[0], ones)
    slices = sum(
        ones.tensors[m.tensor].numel() / ones.tensors[m.tensor].shape[m.dim] * m.index.shape[1]
        for m in twice[0].members
        if m.role != "stat"
    )
    assert (scores == slices - 1).all()


class TestOptimalBrainSurgeon(CriterionTests):
    name = "obs"

    def test_scores_rank_units_as_the_trace_does(self) -> None:
        for net in self.nets:
            this = case(net)
            inputs = [inputs for inputs, _ in this.batches]
            for name, trace in traces(this.model, this.structure, inputs)[0].items():
                scores = self.scores(this.structure.group(name), this.statistics)
                assert scores.sort().indices.tolist() == trace.order.tolist()

    def test_without_losses_it_says_what_is_missing(self) -> None:
        this = case("conv_bn_relu")
        bare = dataclasses.replace(this.statistics, losses={})
        with pytest.raises(sc.InputError, match=r"no losses of group .* calibration inputs"):
            self.scores(this.structure.groups[0], bare)


def test_every_criterion_is_tested():
    for other in (
        "magnitude",
        "gradients",
        "second_order",
        "flow",
        "inputs",
        "activations",
    ):
        importlib.import_module(f"test_criteria_{other}")
    own = set(CRITERIA.names())
    assert {cls.name for cls in _leaves(CriterionTests)} == own
    elements = {name for name in own if hasattr(CRITERIA.get(name), "elements")}
    assert {cls.name for cls in _leaves(ElementTests)} == elements


def _leaves(cls: type) -> list[type]:
    below = cls.__subclasses__()
    return [leaf for sub in below for leaf in _leaves(sub)] if below else [cls]

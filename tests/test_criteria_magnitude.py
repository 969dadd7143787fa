"""Criteria of weights alone: norms, shares, similarity of filters, noise, gaps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import nn

import secateur as sc
from criterion_cases import (
    BruteForce,
    CriterionTests,
    ElementTests,
    case,
    generator,
    owned,
    owned_values,
    with_generator,
)
from oracle import randomise
from secateur.criteria import CRITERIA
from secateur.criteria._reduction import REDUCTIONS
from secateur.criteria.density import GapDensity
from secateur.criteria.lp import Lp
from secateur.criteria.noise import Noise
from secateur.protocols import Statistics
from secateur.training.statistics import collect


def parts(group, unit, values):
    """The values that a unit owns, tensor by tensor."""
    shapes = {name: tuple(tensor.shape) for name, tensor in values.items()}
    return {name: values[name][mask] for name, mask in owned(group, unit, shapes).items()}


class Magnitudes(ElementTests):
    def test_an_element_counts_by_its_absolute_value(self):
        for name, statistics in self.tensors():
            expected = np.abs(statistics.tensors[name].numpy())
            assert np.array_equal(self.elements(name, statistics).numpy(), expected)


class TestL1Elements(Magnitudes):
    name = "l1"


class TestL2Elements(Magnitudes):
    name = "l2"


class TestLInfinity(BruteForce, Magnitudes):
    name = "linf"

    def of_unit(self, group, unit, statistics):
        return float(owned_values(group, unit, statistics.tensors).abs().max())

    def test_it_is_what_large_p_comes_to(self):
        for group, statistics in self.groups():
            scores = self.scores(group, statistics)
            large = Lp(p=200.0)(group, statistics)
            assert ((large >= scores) & (large <= scores * 1.05)).all()


class TestLp(BruteForce, Magnitudes):
    name = "lp"

    def of_unit(self, group, unit, statistics):
        own = owned_values(group, unit, statistics.tensors).abs().numpy()
        return float((own**0.5).sum() ** 2)

    @pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
    def test_any_p_is_that_of_numpy(self, p):
        for group, statistics in self.groups():
            scores = Lp(p=p)(group, statistics)
            for unit in range(group.size):
                own = owned_values(group, unit, statistics.tensors).numpy()
                assert float(scores[unit]) == pytest.approx(np.linalg.norm(own, p), rel=1e-9)

    def test_no_norm_is_said(self):
        for p in (0, -1, float("inf"), float("nan")):
            with pytest.raises(sc.InputError, match=f"p is {p}"):
                Lp(p=p)


class TestMeanMagnitude(BruteForce, Magnitudes):
    name = "mean-magnitude"

    def of_unit(self, group, unit, statistics):
        return float(owned_values(group, unit, statistics.tensors).abs().mean())


class TestLayerShare(CriterionTests, ElementTests):
    name = "layer-share"

    def test_shares_of_a_layer_sum_to_one(self):
        for name, statistics in self.tensors():
            assert float(self.elements(name, statistics).sum()) == pytest.approx(1)

    def test_a_unit_has_the_mean_of_its_shares(self):
        for group, statistics in self.groups():
            if len({m.tensor for m in group.members}) < len(group.members):
                continue  # a tensor of two members: its diagonal has no tensor of its own
            scores = self.scores(group, statistics)
            for unit in range(group.size):
                values = parts(group, unit, statistics.tensors)
                shares = [
                    float(own.abs().sum() / statistics.tensors[name].abs().sum())
                    for name, own in values.items()
                ]
                assert float(scores[unit]) == pytest.approx(np.mean(shares))

    def test_the_scale_of_a_layer_does_not_matter(self):
        for group, statistics in self.groups():
            scaled = {
                name: tensor * (3 + number)
                for number, (name, tensor) in enumerate(statistics.tensors.items())
            }
            torch.testing.assert_close(
                self.scores(group, Statistics(scaled)), self.scores(group, statistics)
            )


class TestRelativeMagnitude(CriterionTests, ElementTests):
    name = "relative-magnitude"

    def test_the_mean_of_a_layer_is_one(self):
        for name, statistics in self.tensors():
            assert float(self.elements(name, statistics).mean()) == pytest.approx(1)

    def test_the_average_unit_has_one_in_every_layer(self):
        model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(),
                              nn.Linear(6, 2))  # fmt: skip
        randomise(model, 0)
        with torch.no_grad():
            model[2].weight *= 100
        structure = sc.trace(model, torch.randn(2, 5).double())
        for group in structure.groups:
            assert float(self.scores(group, collect(model, structure)).mean()) == pytest.approx(1)

    def test_the_order_in_a_layer_is_that_of_magnitude(self):
        for name, statistics in self.tensors():
            order = self.elements(name, statistics).reshape(-1).argsort(stable=True)
            expected = statistics.tensors[name].abs().reshape(-1).argsort(stable=True)
            assert torch.equal(order, expected)


class TestModelShare(BruteForce, ElementTests):
    name = "model-share"

    def whole(self, statistics):
        model = next(case(n).model for n in self.nets if case(n).statistics is statistics)
        return sum(float(p.detach().abs().sum()) for p in model.parameters())

    def of_unit(self, group, unit, statistics):
        own = owned_values(group, unit, statistics.tensors)
        return float(own.abs().sum()) / self.whole(statistics)

    def test_elements_of_the_whole_model_sum_to_one(self):
        this = case("conv_bn_relu")
        names = [name for name, _ in this.model.named_parameters()]
        total = sum(float(self.elements(name, this.statistics).sum()) for name in names)
        assert total == pytest.approx(1)


class TestLamp(BruteForce, ElementTests):
    name = "lamp"

    def of_unit(self, group, unit, statistics):
        sizes = [
            float(owned_values(group, other, statistics.tensors).square().sum())
            for other in range(group.size)
        ]
        return sizes[unit] / sum(size for size in sizes if size >= sizes[unit])

    def test_an_element_is_compared_with_those_that_are_no_smaller(self):
        for name, statistics in self.tensors():
            own = statistics.tensors[name].reshape(-1)[:500]
            small = Statistics({"w": own})
            expected = [float(w**2 / own[own.abs() >= w.abs()].square().sum()) for w in own]
            scores = self.elements("w", small)
            torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float64))
            assert float(scores.max()) == 1

    def test_a_global_ranking_is_greed_for_the_least_distortion_of_a_layer(self):
        """Pruning by LAMP takes next whatever adds least to the share of its layer that is lost."""
        draw = torch.Generator().manual_seed(0)
        layers = {n: torch.randn(6, generator=draw).double() for n in ("a", "b", "c")}
        scores = {n: self.elements(n, Statistics(layers)) for n in layers}
        ranked = sorted((float(s), n) for n, own in scores.items() for s in own)
        left = {n: sorted(w.square().tolist()) for n, w in layers.items()}
        for score, layer in ranked[:15]:
            steps = {n: rest[0] / sum(rest) for n, rest in left.items() if len(rest) > 1}
            best = min(steps, key=steps.__getitem__)
            assert layer == best and score == pytest.approx(steps[best])
            left[layer].pop(0)

    def test_zeros_have_none(self):
        assert not self.elements("w", Statistics({"w": torch.zeros(3)})).any()


class TestDensity(BruteForce):
    name = "density"

    def of_unit(self, group, unit, statistics):
        sizes = [
            float(owned_values(group, other, statistics.tensors).norm())
            for other in range(group.size)
        ]
        gaps = [sizes[unit] - max((s for s in sizes if s < sizes[unit]), default=sizes[unit])]
        gaps += [min((s for s in sizes if s > sizes[unit]), default=sizes[unit]) - sizes[unit]]
        return float(np.mean([gap for gap in gaps if gap]))

    def test_the_dense_go_first(self):
        norms = torch.tensor([1.0, 1.01, 1.02, 1.03, 3.0, 5.0]).double()
        model = nn.Sequential(nn.Linear(1, 6, bias=False), nn.ReLU(), nn.Linear(6, 1, bias=False))
        structure = sc.trace(model, torch.randn(2, 1))
        statistics = Statistics(
            {"0.weight": norms[:, None], "2.weight": torch.zeros(1, 6).double()}
        )
        scores = self.scores(structure.groups[0], statistics)
        assert set(scores.argsort()[:3].tolist()) == {0, 1, 2}
        torch.testing.assert_close(scores[5], torch.tensor(2.0).double())

    def test_no_neighbour_is_said(self):
        with pytest.raises(sc.InputError, match="k is 0"):
            GapDensity(k=0)


class TestFilterCorrelation(BruteForce):
    name = "filter-correlation"
    nets = ("conv_bn_relu", "conv_flatten", "basic_blocks", "elman_loop")

    def of_unit(self, group, unit, statistics):
        own = owned_values(group, unit, statistics.tensors, ("out",)).numpy()
        others = [
            owned_values(group, v, statistics.tensors, ("out",)).numpy()
            for v in range(group.size) if v != unit
        ]  # fmt: skip
        return 1 - max(abs(own @ v) / (np.linalg.norm(own) * np.linalg.norm(v)) for v in others)

    def test_a_copy_at_any_scale_has_nothing_of_its_own(self):
        group, statistics = planted()
        scores = self.scores(group, statistics)
        assert set(scores.argsort()[:2].tolist()) == {3, 11}
        assert scores[[3, 11]].abs().max() < 1e-12


class TestFilterClustering(CriterionTests):
    name = "filter-clustering"
    nets = ("conv_bn_relu", "conv_flatten", "basic_blocks", "elman_loop")

    def test_the_highest_are_the_largest_of_each_cluster(self):
        draw = torch.Generator().manual_seed(0)
        centres = 10 * torch.randn(4, 9, generator=draw).double()
        filters = centres.repeat_interleave(4, 0)
        filters += 0.01 * torch.randn(filters.shape, generator=draw).double()
        model = nn.Sequential(nn.Linear(9, 16, bias=False), nn.ReLU(), nn.Linear(16, 2))
        structure = sc.trace(model, torch.randn(2, 9))
        tensors = {"0.weight": filters, "2.weight": torch.randn(2, 16).double()}
        scores = self.scores(structure.groups[0], Statistics(tensors))
        kept = set(scores.argsort(descending=True)[:4].tolist())
        norms = filters.norm(dim=1)
        largest = {4 * c + int(norms[4 * c : 4 * c + 4].argmax()) for c in range(4)}
        assert kept == largest

    def test_of_two_copies_one_goes_first(self):
        group, statistics = planted(scale=1.0)
        scores = self.scores(group, statistics)
        lowest = int(scores.argmin())
        assert lowest in (3, 11) and float(scores[14 - lowest]) > 0.1


def planted(scale: float = 2.0):
    """A net whose filters 3 and 11 are the same but for a scale."""
    model = nn.Sequential(nn.Conv2d(8, 16, 3, bias=False), nn.ReLU(), nn.Conv2d(16, 4, 1))
    randomise(model, seed=0)
    with torch.no_grad():
        model[0].weight[11] = scale * model[0].weight[3]
    structure = sc.trace(model, torch.randn(2, 8, 5, 5, dtype=torch.float64))
    return structure.groups[0], collect(model, structure)


class TestNoise(CriterionTests, ElementTests):
    name = "noise"
    draws = True

    def test_scores_follow_the_units(self):
        """Norms do; what is drawn stays with the places."""
        for group, statistics in self.groups():
            order = np.random.default_rng(0).permutation(group.size)
            members = tuple(
                dataclasses.replace(member, index=member.index[order]) for member in group.members
            )
            permuted = self.scores(dataclasses.replace(group, members=members), statistics)
            norms = CRITERIA.get("l2")()(group, statistics)
            drawn = self.scores(group, statistics) / norms
            torch.testing.assert_close(permuted, norms[order] * drawn, rtol=1e-7, atol=1e-12)

    def test_without_noise_it_is_magnitude(self):
        for group, statistics in self.groups():
            expected = CRITERIA.get("l2")()(group, statistics)
            for quiet in (Noise(epsilon=0.0), Noise(eta=0.0)):
                assert torch.equal(quiet(group, with_generator(statistics)), expected)

    def test_the_ratio_is_the_share_of_scores_that_are_noisy(self):
        statistics = Statistics({"w": torch.ones(20000)}, generator=generator(0))
        noisy = Noise(eta=0.3).elements("w", statistics) != 1
        assert abs(float(noisy.double().mean()) - 0.3) < 0.015

    @pytest.mark.parametrize("epsilon", [0.5, 1.0, 16.0])
    def test_the_first_is_drawn_with_chances_like_a_power_of_the_size(self, epsilon):
        """Gumbel-max: chances s^(1/epsilon), by chi-square."""
        sizes = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
        chances = (sizes ** (1 / epsilon)).numpy()
        assert chisquare(*self.drawn(sizes, epsilon, chances)).pvalue > 1e-3
        wrong = chances * np.array([1.1, 1, 1, 1])
        assert chisquare(*self.drawn(sizes, epsilon, wrong)).pvalue < 1e-3

    def test_much_noise_draws_evenly(self):
        sizes = torch.tensor([1.0, 1.02, 1.05, 1.1]).double()
        assert chisquare(*self.drawn(sizes, 16.0, np.ones(4))).pvalue > 1e-3
        assert chisquare(*self.drawn(sizes, 0.1, np.ones(4))).pvalue < 1e-3

    def drawn(self, sizes, epsilon, chances):
        draws = 40000
        statistics = Statistics({"w": sizes.repeat(draws, 1)}, generator=generator(0))
        first = Noise(epsilon=epsilon).elements("w", statistics).argmax(1)
        return torch.bincount(first, minlength=4).numpy(), draws * chances / chances.sum()

    def test_what_cannot_be_is_said(self):
        for wrong, match in (({"eta": 2.0}, "eta is 2.0"), ({"epsilon": -1.0}, "epsilon is -1.0")):
            with pytest.raises(sc.InputError, match=match):
                Noise(**wrong)
        with pytest.raises(sc.InputError, match="noise needs a generator"):
            Noise().elements("w", Statistics({"w": torch.ones(2)}))


class TestRandomElements(ElementTests):
    name = "random"


class TestImportanceSamplingElements(ElementTests):
    name = "importance-sampling"

    def test_the_first_is_drawn_with_chances_like_the_size(self):
        sizes = torch.tensor([1.0, -2.0, 3.0, -4.0])
        wide = Statistics({"w": sizes.repeat(40000, 1)}, generator=generator(0))
        first = CRITERIA.get(self.name)().elements("w", wide).argmax(1)
        expected = 40000 * sizes.abs().numpy() / 10
        assert chisquare(torch.bincount(first).numpy(), expected).pvalue > 1e-3


class TestReductions:
    def test_each_is_what_it_says(self):
        this = case("conv_bn_relu")
        group, statistics = this.structure.groups[0], this.statistics
        tensors = statistics.tensors
        own = [
            np.array([
                sum(float(tensors[m.tensor].select(m.dim, int(i)).abs().sum()) for i in m.index[u])
                for u in range(group.size)
            ])
            for m in group.members if m.role != "stat"
        ]  # fmt: skip
        producing = [s for s, m in zip(own, (m for m in group.members if m.role != "stat"),
                                       strict=True) if m.role == "out"]  # fmt: skip
        expected = {
            "sum": np.sum(own, 0), "mean": np.mean(own, 0), "max": np.max(own, 0),
            "product": np.prod(own, 0), "first": producing[0], "producers": np.sum(producing, 0),
        }  # fmt: skip
        assert set(expected) == set(REDUCTIONS)
        for reduction, values in expected.items():
            scores = CRITERIA.get("l1")(reduction=reduction)(group, statistics)
            np.testing.assert_allclose(scores.numpy(), values, rtol=1e-12)
        squares = CRITERIA.get("l2")(reduction="mean")(group, statistics).square()
        whole = CRITERIA.get("l2")()(group, statistics).square()
        torch.testing.assert_close(squares, whole / len(own))

    def test_every_criterion_that_has_one_takes_all(self):
        this = case("basic_blocks")
        names = [n for n in CRITERIA.names() if hasattr(CRITERIA.get(n), "reduction")]
        assert {"l1", "l2", "taylor", "taylor-abs", "snip", "grasp", "obd", "synflow"} <= set(names)
        for name in names:
            found = {
                reduction: CRITERIA.get(name)(reduction=reduction)(
                    this.structure.groups[1], this.statistics
                )
                for reduction in REDUCTIONS
            }
            for reduction, scores in found.items():
                assert torch.isfinite(scores).all(), (name, reduction)
            least = 2 if name == "linf" else 4  # the largest of a sum is that of its parts
            assert len({tuple(scores.tolist()) for scores in found.values()}) >= least, name

    def test_an_unknown_one_is_said(self):
        this = case("conv_bn_relu")
        with pytest.raises(sc.InputError, match="unknown reduction 'summ': did you mean 'sum'"):
            CRITERIA.get("l1")(reduction="summ")(this.structure.groups[0], this.statistics)

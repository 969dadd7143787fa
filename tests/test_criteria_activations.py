"""Criteria of activations: sizes, zeros, entropies, correlations, ranks of feature maps."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import secateur as sc
from criterion_cases import BruteForce, CriterionTests, case
from oracle import call, randomise
from secateur.criteria import CRITERIA
from secateur.criteria.entropy import FeatureMapEntropy
from secateur.protocols import Activations, Statistics
from secateur.training.statistics import collect
from zoo import ZOO

UNIT = "body"


def group_of(size: int) -> sc.Group:
    """A group that has nothing but a name and a size."""
    return sc.Group(UNIT, size, ())


def with_means(means: torch.Tensor) -> Statistics:
    """Of mean activations [samples, units]."""
    sizes = means.abs().mean(0)
    return Statistics({}, activations={UNIT: Activations(means, sizes, torch.zeros_like(sizes))})


def with_maps(maps: torch.Tensor) -> Statistics:
    return Statistics({}, maps={UNIT: maps})


def with_covariance(values: torch.Tensor) -> Statistics:
    """Of activations [units, values]."""
    return Statistics({}, covariances={UNIT: torch.cov(values, correction=0)})


def conv_net():
    """A convolution that two layers read, after ReLU and a max pool, and its inputs."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.next = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 3, 1)
            self.head = nn.Linear(6 * 9, 2)

        def forward(self, x):
            a = functional.max_pool2d(functional.relu(self.body(x)), 2)
            return self.next(a).sum((2, 3)), self.head(a.flatten(1))

    model = randomise(Net(), 0)
    with torch.no_grad():
        model.body.bias[4] = -100
    draw = torch.Generator().manual_seed(0)
    batches = [(torch.randn(n, 2, 8, 8, generator=draw).double(), None) for n in (3, 5)]
    x = torch.cat([x for x, _ in batches])
    a = functional.max_pool2d(functional.relu(model.body(x)), 2).detach()
    return model, sc.trace(model, batches[0][0]), batches, x, a


def test_activations_are_what_the_readers_get():
    model, structure, batches, _, a = conv_net()
    needs = {"activations", "covariances", "maps"}
    statistics = collect(model, structure, batches, needs=needs)
    own = statistics.activations["body"]
    torch.testing.assert_close(own.means, a.mean((2, 3)))
    torch.testing.assert_close(own.sizes, a.abs().mean((0, 2, 3)))
    torch.testing.assert_close(own.zeros, (a == 0).double().mean((0, 2, 3)))
    covariance = torch.cov(a.transpose(0, 1).flatten(1), correction=0)
    torch.testing.assert_close(statistics.covariances["body"], covariance)


def test_maps_are_those_of_most_places():
    model, structure, batches, x, _ = conv_net()
    maps = collect(model, structure, batches, needs={"maps"}).maps["body"]
    expected = functional.relu(model.body(x)).detach().float()
    torch.testing.assert_close(maps, expected)


def test_what_is_written_in_place_is_looked_at_when_it_is_read():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x):
            a = self.body(x)
            a.mul_(2)
            functional.relu_(a)
            return self.head(a)

    model = randomise(Net(), 0)
    x = torch.randn(7, 3).double()
    found = collect(model, sc.trace(model, x), [(x, None)], needs={"activations"})
    a = (2 * model.body(x)).relu().detach()
    torch.testing.assert_close(found.activations["body"].means, a)


@pytest.mark.parametrize("net", ["basic_blocks", "packed_attention", "elman_loop", "conv_flatten"])
def test_activations_of_nets_by_hooks(net):
    """The mean of what every layer that reads a group gets; units by the indices of its weight."""
    this = case(net)
    seen: dict[str, list[torch.Tensor]] = {}
    model = this.model
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):

            def keep(module, given, name=name):
                seen.setdefault(f"{name}.weight", []).append(given[0].detach())

            hooks.append(module.register_forward_pre_hook(keep))
    for inputs, _ in this.batches:
        call(model, inputs)
    for hook in hooks:
        hook.remove()
    for group in this.structure.groups:
        readers = [m for m in group.members if m.role == "in" and m.tensor in seen]
        if not readers or len(seen[readers[0].tensor]) > len(this.batches):
            continue  # nothing linear, or one layer called in every step of time
        sizes = []
        distinct: dict[int, torch.Tensor] = {}
        for member in readers:
            for x in seen[member.tensor][:1]:
                distinct[x.data_ptr()] = x
            x = torch.cat(seen[member.tensor])
            channels = x.movedim(1 if x.dim() == 4 else -1, 0).flatten(1).abs().mean(1)
            sizes.append(channels[torch.as_tensor(member.index)].mean(1))
        if len(distinct) == len(readers):
            expected = torch.stack(sizes).mean(0)
            found = this.statistics.activations[group.name].sizes
            torch.testing.assert_close(found, expected)


def test_every_net_of_the_zoo_can_be_looked_at():
    """Whatever its graph: statistics of the right sizes, or none of a group."""
    for name in list(ZOO)[::11]:
        torch.manual_seed(0)
        model = ZOO[name].build()
        inputs = ZOO[name].inputs()
        structure = sc.trace(model, inputs)
        needs = {"activations", "covariances", "maps", "norms", "contributions", "flow"}
        found = collect(model, structure, [(inputs, None)], needs=needs)
        for group in structure.groups:
            if group.name in found.activations:
                assert found.activations[group.name].sizes.shape == (group.size,)
                assert found.covariances[group.name].shape == (group.size, group.size)
                assert found.maps[group.name].shape[1] == group.size


class TestApoz(BruteForce):
    name = "apoz"
    nets = ("conv_bn_relu", "conv_flatten")

    def of_unit(self, group, unit, statistics):
        return 1 - float(statistics.activations[group.name].zeros[unit])

    def test_a_dead_unit_has_nothing(self):
        model, structure, batches, _, a = conv_net()
        scores = self.scores(
            structure.group("body"), collect(model, structure, batches, needs={"activations"})
        )
        assert int(scores.argmin()) == 4 and float(scores[4]) == 0
        torch.testing.assert_close(scores, (a != 0).double().mean((0, 2, 3)))

    def test_one_finite_float_per_unit(self):
        """All have 1 where nothing is zero."""
        this = case("packed_attention")
        for group in this.structure.groups:
            assert (self.scores(group, this.statistics) == 1).all()


class TestMeanActivation(BruteForce):
    name = "mean-activation"

    def of_unit(self, group, unit, statistics):
        return float(statistics.activations[group.name].sizes[unit])

    def test_it_is_the_mean_absolute_value(self):
        model, structure, batches, _, a = conv_net()
        found = collect(model, structure, batches, needs={"activations"})
        torch.testing.assert_close(
            self.scores(structure.group("body"), found), a.abs().mean((0, 2, 3))
        )


class TestEntropy(BruteForce):
    name = "entropy"

    def of_unit(self, group, unit, statistics):
        means = statistics.activations[group.name].means.numpy()
        counts, _ = np.histogram(means[:, unit], bins=10, range=(means.min(), means.max()))
        shares = counts[counts > 0] / len(means)
        return float(-(shares * np.log(shares)).sum())

    def test_of_a_constant_it_is_nothing_and_of_an_even_spread_all(self):
        even = (torch.arange(100).double() + 0.5) / 100
        means = torch.stack([torch.full((100,), 0.3).double(), even, even.round()], 1)
        means[0, 1], means[-1, 1] = 0.0, 1.0
        scores = self.scores(group_of(3), with_means(means))
        expected = torch.tensor([0.0, math.log(10), math.log(2)]).double()
        torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-12)
        finer = FeatureMapEntropy(bins=20)(group_of(3), with_means(means))
        assert float(finer[1]) == pytest.approx(math.log(20))

    def test_where_all_are_constant_there_is_none(self):
        assert not self.scores(group_of(2), with_means(torch.ones(5, 2).double())).any()

    def test_what_cannot_be_is_said(self):
        with pytest.raises(sc.InputError, match="bins is 1"):
            FeatureMapEntropy(bins=1)


class TestMaxEntropy(CriterionTests):
    name = "max-entropy"

    def values(self):
        draw = torch.Generator().manual_seed(0)
        mix = torch.randn(7, 7, generator=draw).double()
        return mix @ torch.randn(7, 4000, generator=draw).double()

    def test_the_choice_is_that_of_greedy_determinants(self):
        values = self.values()
        square = torch.cov(values, correction=0)
        square += 1e-3 * square.diagonal().mean() * torch.eye(7).double()
        chosen: list[int] = []
        logs = [0.0]
        for _ in range(7):
            gains = {
                u: float(torch.logdet(square[[*chosen, u]][:, [*chosen, u]]))
                for u in range(7) if u not in chosen
            }  # fmt: skip
            chosen.append(max(gains, key=gains.__getitem__))
            logs.append(gains[chosen[-1]])
        scores = self.scores(group_of(7), with_covariance(values))
        assert scores.argsort(descending=True).tolist() == chosen
        noise = 1e-3 * float(torch.cov(values, correction=0).diagonal().mean())
        sums = scores.sort(descending=True).values.cumsum(0)
        for count, total in enumerate(sums, 1):
            assert float(total) == pytest.approx(0.5 * (logs[count] - count * math.log(noise)))

    def test_the_choice_is_that_of_pivoted_orthogonalisation(self):
        """QR with column pivoting of the centred values, for little noise."""
        from scipy.linalg import qr

        values = self.values()
        centred = (values - values.mean(1, keepdim=True)).numpy()
        pivots = qr(centred.T, mode="economic", pivoting=True)[2]
        order = self.scores(group_of(7), with_covariance(values)).argsort(descending=True)
        assert order[:5].tolist() == pivots[:5].tolist()

    def test_a_copy_is_chosen_last(self):
        values = self.values()
        values[5] = values[2] * 1.0
        scores = self.scores(group_of(7), with_covariance(values))
        last = int(scores.argmin())
        assert last in (2, 5) and float(scores[last]) < 0.4  # half of log 2, for the noise
        assert float(scores[7 - last]) > 1

    def test_dead_units_hold_none(self):
        assert not self.scores(group_of(3), with_covariance(torch.zeros(3, 9).double())).any()


class TestFeatureCorrelation(BruteForce):
    name = "feature-correlation"

    def of_unit(self, group, unit, statistics):
        square = statistics.covariances[group.name].numpy()
        size = np.sqrt(np.diag(square))
        if not size[unit]:
            return 0.0
        size[size == 0] = np.inf
        rows = [abs(square[unit, v]) / (size[unit] * size[v])
                for v in range(group.size) if v != unit]  # fmt: skip
        return 1 - max(rows)

    def test_copies_and_constants_have_nothing_of_their_own(self):
        draw = torch.Generator().manual_seed(0)
        values = torch.randn(6, 500, generator=draw).double()
        values[3] = -2 * values[1] + 7
        values[4] = 5
        scores = self.scores(group_of(6), with_covariance(values))
        assert scores[[1, 3, 4]].abs().max() < 1e-12
        assert scores[[0, 2, 5]].min() > 0.8


class TestFeatureClustering(CriterionTests):
    name = "feature-clustering"

    def test_the_highest_are_of_one_cluster_each(self):
        draw = torch.Generator().manual_seed(0)
        sources = torch.randn(3, 2000, generator=draw).double()
        values = sources.repeat_interleave(4, 0) + 0.1 * torch.randn(12, 2000, generator=draw)
        values *= torch.linspace(1, 2, 12)[:, None]
        values[::2] *= -1
        scores = self.scores(group_of(12), with_covariance(values))
        variances = values.var(1)
        largest = {4 * c + int(variances[4 * c : 4 * c + 4].argmax()) for c in range(3)}
        assert set(scores.argsort(descending=True)[:3].tolist()) == largest


class TestHRank(BruteForce):
    name = "hrank"
    nets = ("conv_bn_relu", "basic_blocks")

    def of_unit(self, group, unit, statistics):
        maps = statistics.maps[group.name].numpy()
        return float(np.mean([np.linalg.matrix_rank(one[unit]) for one in maps]))

    def test_one_finite_float_per_unit(self):
        """Small maps may all be of full rank."""
        for group, statistics in self.groups():
            scores = self.scores(group, statistics)
            assert scores.shape == (group.size,) and torch.isfinite(scores).all()

    def test_of_known_matrices(self):
        draw = torch.Generator().manual_seed(0)
        rows, columns = torch.randn(2, 5, 6, generator=draw)
        maps = torch.stack([
            torch.outer(rows[0], columns[0]), torch.eye(6), torch.zeros(6, 6),
            rows[:3].T @ columns[:3],
        ])  # fmt: skip
        scores = self.scores(group_of(4), with_maps(torch.stack([maps, 2 * maps])))
        assert scores.tolist() == [1, 6, 0, 3]

    def test_what_is_no_image_is_said(self):
        with pytest.raises(sc.InputError, match="hrank needs feature maps of two dimensions"):
            self.scores(group_of(3), with_maps(torch.ones(2, 3, 5)))


class TestChip(BruteForce):
    name = "chip"

    def of_unit(self, group, unit, statistics):
        found = []
        for one in statistics.maps[group.name].flatten(2).double().numpy():
            without = one.copy()
            without[unit] = 0
            found.append(np.linalg.norm(one, "nuc") - np.linalg.norm(without, "nuc"))
        return float(np.mean(found))

    def test_a_loop_over_units_says_the_same(self):
        """Singular values are roots of eigenvalues here: near zero half of the digits are left."""
        for group, statistics in self.groups():
            expected = [self.of_unit(group, unit, statistics) for unit in range(group.size)]
            size = statistics.maps[group.name].double().norm()
            torch.testing.assert_close(
                self.scores(group, statistics), torch.tensor(expected).double(),
                rtol=1e-6, atol=1e-7 * float(size),
            )  # fmt: skip

    def test_scores_follow_the_units(self):
        for group, statistics in self.groups():
            order = np.random.default_rng(0).permutation(group.size)
            maps = statistics.maps[group.name][:, torch.from_numpy(order)]
            permuted = dataclasses.replace(statistics, maps={group.name: maps})
            torch.testing.assert_close(
                self.scores(group, permuted), self.scores(group, statistics)[order],
                rtol=1e-6, atol=1e-7 * float(maps.double().norm()),
            )  # fmt: skip

    @pytest.mark.parametrize("places", [4, 40])
    def test_copies_are_worth_less_than_the_like_of_their_own(self, places):
        draw = torch.Generator().manual_seed(0)
        maps = torch.randn(3, 8, places, generator=draw)
        maps = maps / maps.norm(dim=2, keepdim=True)
        maps[:, 6] = maps[:, 1]
        scores = self.scores(group_of(8), with_maps(maps))
        if places > 8:
            assert set(scores.argsort()[:2].tolist()) == {1, 6}
        assert float(scores[1]) == pytest.approx(float(scores[6]))


def test_only_what_there_is_room_for_is_kept(monkeypatch):
    from secateur.training.statistics import activations

    model, structure, batches, _, _ = conv_net()
    monkeypatch.setattr(activations, "MAPS_MEMORY", 4 * 6 * 36 * 4 + 1)
    maps = collect(model, structure, batches, needs={"maps"}).maps["body"]
    assert len(maps) == 4


def test_the_model_is_left_as_it_was_by_all_passes():
    model, structure, batches, _, _ = conv_net()
    model.train()
    labelled = [(x, torch.randint(0, 3, (len(x),))) for x, _ in batches]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.random.get_rng_state()
    needs = {need for name in CRITERIA.names() for need in CRITERIA.get(name)().needs}
    collect(model, structure, labelled, needs=needs - {"losses"})
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in state)
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), random)

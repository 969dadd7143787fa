"""Criteria of what linear layers read: Wanda, optimal brain surgeon of weights, ThiNet."""

from __future__ import annotations

import copy
import dataclasses
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

import secateur as sc
from criterion_cases import BruteForce, CriterionTests, ElementTests, case, owned_values
from oracle import call, randomise
from secateur.criteria import CRITERIA
from secateur.repair.rows import removal_errors
from secateur.training.statistics import collect

READ = ("conv_bn_relu", "conv_flatten", "basic_blocks")


def inputs_of_layers(model: nn.Module, batches) -> dict[str, torch.Tensor]:
    """What each layer reads [samples, inputs], by hooks: windows of convolutions."""
    found: dict[str, list[torch.Tensor]] = {}

    def keep(name, module):
        def hook(_, given):
            x = given[0].detach()
            if isinstance(module, nn.Conv2d):
                x = nn.functional.unfold(x, module.kernel_size, module.dilation, module.padding,
                                         module.stride).transpose(1, 2)  # fmt: skip
            found.setdefault(f"{name}.weight", []).append(x.reshape(-1, x.shape[-1]))

        return hook

    model = copy.deepcopy(model).eval()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(keep(name, module))
    for inputs, _ in batches:
        call(model, inputs)
    return {name: torch.cat(some) for name, some in found.items()}


class TestWanda(BruteForce, ElementTests):
    name = "wanda"
    nets = READ
    only = True

    def values(self, statistics):
        this = next(case(n) for n in self.nets if case(n).statistics is statistics)
        read = inputs_of_layers(this.model, this.batches)
        tensors = {name: p.detach() for name, p in this.model.named_parameters()}
        return {
            name: (tensors[name].abs().flatten(1) * x.square().mean(0).sqrt()).reshape(
                tensors[name].shape
            )
            for name, x in read.items()
        }

    def of_unit(self, group, unit, statistics):
        return float(owned_values(group, unit, self.values(statistics), ("in",)).sum())

    def test_elements_are_weights_times_norms(self):
        for net in self.nets:
            statistics = case(net).statistics
            values = self.values(statistics)
            assert values.keys() == statistics.norms.keys()
            for name, expected in values.items():
                torch.testing.assert_close(self.elements(name, statistics), expected)

    def test_of_uncorrelated_inputs_it_ranks_as_optimal_brain_surgeon(self):
        """H diagonal: w² h / 2 has the order of |w| sqrt(h), within a row and across."""
        model = randomise(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), 0)
        x = torch.diag(torch.tensor([0.1, 3.0, 1.0, 0.5, 2.0, 7.0])).double()
        structure = sc.trace(model, x)
        statistics = collect(model, structure, [(x, None)], needs={"norms", "inverses"})
        wanda = self.elements("0.weight", statistics)
        obs = CRITERIA.get("obs-weights")().elements("0.weight", statistics)
        undamped = 0.5 * model[0].weight.detach().square() * x.square().mean(0)
        assert torch.equal(undamped.reshape(-1).argsort(), wanda.reshape(-1).argsort())
        order = obs.argsort(1)
        damped = (
            0.5
            * model[0].weight.detach().square()
            * (x.square().mean(0) + 1e-2 * x.square().mean())
        )
        assert torch.equal(order, damped.argsort(1))

    def test_what_no_layer_reads_is_said(self):
        this = case("packed_attention")
        group = this.structure.group("attention.qkv/12")
        scores = self.scores(group, this.statistics)  # the values are read by the projection
        assert scores.shape == (group.size,)
        keys = this.structure.group("attention.qkv/9")
        with pytest.raises(sc.InputError, match=r"'attention.qkv/9'; give data"):
            self.scores(dataclasses.replace(keys, members=keys.members[:1]), this.statistics)
        with pytest.raises(sc.InputError, match=r"wanda has no norms of 'embed.bias'"):
            self.elements("embed.bias", this.statistics)

    def test_recurrent_weights_are_read_step_by_step(self):
        """The hidden weight reads the answers of all steps but the last, and the first state."""

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.cell, self.head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)

            def forward(self, x):
                return self.head(self.cell(x)[0][:, -1])

        model = randomise(Net(), 0)
        x = torch.randn(4, 6, 3).double()
        norms = collect(model, sc.trace(model, x), [(x, None)], needs={"norms"}).norms
        answers = model.cell(x)[0].detach()
        before = torch.cat([torch.zeros(4, 1, 5).double(), answers[:, :-1]], 1)
        for name, read in (("hh", before), ("ih", x)):
            expected = read.flatten(0, 1).square().mean(0).sqrt()
            found = norms[f"cell.weight_{name}_l0"]
            torch.testing.assert_close(found, expected.expand(found.shape))


class TestObsWeights(BruteForce, ElementTests):
    name = "obs-weights"
    nets = READ
    only = True

    def of_unit(self, group, unit, statistics):
        this = next(case(n) for n in self.nets if case(n).statistics is statistics)
        read = inputs_of_layers(this.model, this.batches)
        values = {}
        for name, x in read.items():
            moment = x.T @ x / len(x)
            dead = moment.diagonal() <= 0
            mean = float(moment.diagonal()[~dead].mean())
            damped = moment + torch.diag(torch.where(dead, mean, 1e-2 * mean))
            weight = this.model.get_parameter(name).detach()
            saliency = weight.flatten(1).square() / (2 * torch.linalg.inv(damped).diagonal())
            values[name] = saliency.reshape(weight.shape)
        return float(owned_values(group, unit, values, ("in",)).sum())

    def test_it_is_the_error_that_is_left_when_the_row_is_solved_anew(self):
        """By least squares on the damped inputs: rows of sqrt(damping * N) I below them."""
        model = randomise(nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2)), 0)
        x = torch.randn(40, 5).double() @ torch.randn(5, 5).double()
        structure = sc.trace(model, x)
        statistics = collect(model, structure, [(x[:20], None), (x[20:], None)], needs={"inverses"})
        scores = self.elements("0.weight", statistics)
        ridge = 1e-2 * float(x.square().mean())
        tall = torch.cat([x, (ridge * 40) ** 0.5 * torch.eye(5).double()])
        w = model[0].weight.detach()
        for row in range(3):
            for j in range(5):
                kept = [k for k in range(5) if k != j]
                answer = tall @ w[row]
                solved = torch.linalg.lstsq(tall[:, kept], answer[:, None]).solution[:, 0]
                error = float((tall[:, kept] @ solved - answer).square().sum()) / 40 / 2
                assert float(scores[row, j]) == pytest.approx(error, rel=1e-8)

    def test_of_inputs_of_one_size_it_is_magnitude(self):
        model = randomise(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), 0)
        x = torch.eye(6).double()
        statistics = collect(model, sc.trace(model, x), [(x, None)], needs={"inverses"})
        order = self.elements("0.weight", statistics).reshape(-1).argsort()
        assert torch.equal(order, model[0].weight.detach().abs().reshape(-1).argsort())


class TestObc(CriterionTests, ElementTests):
    name = "obc"
    nets = READ
    only = True

    def row(self, seed: int):
        """A row of 7 weights and the damped second moment of correlated inputs."""
        draw = torch.Generator().manual_seed(seed)
        x = torch.randn(50, 7, generator=draw).double() @ torch.randn(7, 7, generator=draw).double()
        moment = x.T @ x / 50
        return torch.randn(7, generator=draw).double(), moment + 0.01 * moment.diagonal().mean() * (
            torch.eye(7).double()
        )

    def cost(self, w, hessian, gone) -> float:
        """Half the error without some, the others solved."""
        left = [j for j in range(len(w)) if j not in gone]
        solved = torch.zeros_like(w)
        if left:
            solved[left] = torch.linalg.solve(hessian[left][:, left], hessian[left] @ w)
        return float((solved - w) @ hessian @ (solved - w)) / 2

    def test_greed_solved_from_scratch_says_the_same(self):
        for seed in range(10):
            w, hessian = self.row(seed)
            gone: list[int] = []
            highest, expected = 0.0, torch.zeros(7).double()
            for _ in range(7):
                before = self.cost(w, hessian, gone)
                rises = {j: self.cost(w, hessian, [*gone, j]) - before
                         for j in range(7) if j not in gone}  # fmt: skip
                gone.append(min(rises, key=rises.__getitem__))
                highest = max(highest, rises[gone[-1]])
                expected[gone[-1]] = highest
            errors = removal_errors(w[None], hessian)[0]
            torch.testing.assert_close(errors, expected, rtol=1e-8, atol=1e-12)

    def test_it_is_near_the_best_of_all_subsets_and_better_than_scoring_once(self):
        ratios, once = [], []
        for seed in range(20):
            w, hessian = self.row(seed)
            best = min(self.cost(w, hessian, gone) for gone in combinations(range(7), 4))
            found = removal_errors(w[None], hessian)[0].argsort(stable=True)[:4].tolist()
            single = (w.square() / torch.linalg.inv(hessian).diagonal()).argsort()[:4].tolist()
            ratios.append(self.cost(w, hessian, found) / best)
            once.append(self.cost(w, hessian, single) / best)
        assert min(ratios) >= 1 - 1e-9
        assert np.mean(ratios) < np.mean(once)

    def test_the_first_of_a_row_is_that_of_obs_weights(self):
        for name, statistics in self.tensors():
            mine = self.elements(name, statistics)
            other = CRITERIA.get("obs-weights")().elements(name, statistics)
            flat, expected = mine.flatten(1), other.flatten(1)
            torch.testing.assert_close(flat.amin(1), expected.amin(1))

    def test_rows_in_portions_say_the_same(self, monkeypatch):
        w, hessian = self.row(0)
        rows = torch.stack([w, 2 * w, w.flip(0)])
        whole = removal_errors(rows, hessian)
        monkeypatch.setattr("secateur.repair.rows.CELLS", 49)
        assert torch.equal(removal_errors(rows, hessian), whole)

    def test_wide_layers_are_said(self):
        model = nn.Sequential(nn.Linear(1025, 3), nn.ReLU(), nn.Linear(3, 2))
        x = torch.randn(2, 1025)
        with pytest.raises(sc.InputError, match=r"'0.weight' has 1025 inputs"):
            collect(model, sc.trace(model, x), [(x, None)], needs={"removals"})


class TestThiNet(CriterionTests):
    name = "thinet"
    nets = READ

    def answers(self, net: str, group) -> list[tuple[torch.Tensor, float]]:
        """For each reader: what each unit adds to every answer [units, answers], and the energy."""
        this = case(net)
        read = inputs_of_layers(this.model, this.batches)
        found = []
        for member in group.members:
            if member.role != "in":
                continue
            weight = this.model.get_parameter(member.tensor).detach()
            places = weight[0, 0].numel() if weight.dim() > 2 else 1
            x = read[member.tensor]
            parts = []
            for unit in range(group.size):
                columns = (member.index[unit][:, None] * places + np.arange(places)).reshape(-1)
                parts.append((x[:, columns] @ weight.flatten(1)[:, columns].T).reshape(-1))
            whole = float((x @ weight.flatten(1).T).square().sum())
            found.append((torch.stack(parts), whole))
        return found

    def loss_of(self, parts, units) -> float:
        return sum(float(one[list(units)].sum(0).square().sum()) / whole for one, whole in parts)

    def test_the_sum_of_the_smallest_is_the_loss_of_greed(self):
        for net in self.nets:
            for group in case(net).structure.groups:
                parts = self.answers(net, group)
                scores = self.scores(group, case(net).statistics)
                left, gone, errors = set(range(group.size)), [], []
                for _ in range(group.size):
                    unit = min(left, key=lambda u: self.loss_of(parts, [*gone, u]))
                    left.remove(unit)
                    gone.append(unit)
                    errors.append(self.loss_of(parts, gone))
                assert scores.argsort().tolist() == gone
                sums = scores.sort().values.cumsum(0)
                assert float(sums[-1]) == pytest.approx(errors[-1], rel=1e-6)
                hull = sums.numpy()
                assert (hull <= np.array(errors) * (1 + 1e-6) + 1e-9).all()

    def test_greed_is_near_the_best_of_all_subsets(self):
        group = case("conv_bn_relu").structure.groups[1]
        parts = self.answers("conv_bn_relu", group)
        order = self.scores(group, case("conv_bn_relu").statistics).argsort().tolist()
        for count in range(1, group.size):
            best = min(self.loss_of(parts, s) for s in combinations(range(group.size), count))
            greedy = self.loss_of(parts, order[:count])
            assert greedy >= best * (1 - 1e-9)
            assert count > 1 or greedy == pytest.approx(best)

    def test_a_dead_unit_goes_first_at_no_cost(self):
        model = randomise(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), 0)
        with torch.no_grad():
            model[0].weight[2] = 0
            model[0].bias[2] = -1
        x = torch.randn(30, 4).double()
        structure = sc.trace(model, x)
        scores = self.scores(
            structure.groups[0], collect(model, structure, [(x, None)], needs={"contributions"})
        )
        assert int(scores.argmin()) == 2 and float(scores[2]) < 1e-9


def test_small_memory_takes_more_passes_and_says_the_same():
    this = case("basic_blocks")
    needs = {"norms", "inverses", "contributions"}
    inputs = [(x, None) for x, _ in this.batches]
    once = collect(this.model, this.structure, inputs, needs=needs)
    often = collect(this.model, this.structure, inputs, needs=needs, memory=1)
    for kind in needs:
        first, second = getattr(once, kind), getattr(often, kind)
        assert first.keys() == second.keys()
        for name in first:
            torch.testing.assert_close(first[name], second[name])
    alone = collect(this.model, this.structure, inputs, needs={"norms"}).norms
    for name in alone:
        torch.testing.assert_close(alone[name], once.norms[name])


def test_grouped_and_transposed_convolutions_are_read_in_the_layout_of_their_weights():
    """Norms of a map are those of finite differences: |dY/dw|, for every weight by itself."""
    for layer in (
        nn.Conv2d(4, 6, 3, groups=2, padding=1, bias=False),
        nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, bias=False),
    ):
        model = randomise(nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), layer), 0)
        x = torch.randn(3, 2, 5, 5).double()
        structure = sc.trace(model, x)
        norms = collect(model, structure, [(x, None)], needs={"norms"}).norms["2.weight"]
        before = model(x).detach()
        places = before[:, 0].numel()
        weight = layer.weight
        for place in range(0, weight.numel(), 7):
            with torch.no_grad():
                weight.reshape(-1)[place] += 1
                change = float((model(x) - before).square().sum())
                weight.reshape(-1)[place] -= 1
            norm = float(norms.reshape(-1)[place])
            assert norm == pytest.approx((change / places) ** 0.5, rel=1e-6)


def test_values_that_are_not_finite_are_said():
    this = case("conv_bn_relu")
    (x,), _ = this.batches[0]
    for needs in ({"norms"}, {"contributions"}):
        with pytest.raises(sc.InputError, match="read values that are not finite"):
            collect(this.model, this.structure, [((x * float("inf"),), None)], needs=needs)


def test_channels_of_grouped_transposed_convolutions_are_those_of_all_groups():
    """What each unit adds to the answers, by zeroing all others."""
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, bias=False)
    model = randomise(nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), layer, nn.Conv2d(6, 2, 1)), 0)
    x = torch.randn(3, 2, 5, 5).double()
    structure = sc.trace(model, x)
    found = collect(model, structure, [(x, None)], needs={"contributions"}).contributions
    read = model[:2](x).detach()
    group = structure.group("0/2~2")  # channels i of both of the layer's groups
    (member,) = [m for m in group.members if m.role == "in"]
    assert member.tensor == "2.weight" and member.index.tolist() == [[0, 2], [1, 3]]
    parts = []
    for unit in range(group.size):
        alone = torch.zeros_like(read)
        alone[:, member.index[unit]] = read[:, member.index[unit]]
        parts.append(layer(alone).detach().reshape(-1))
    rows = torch.stack(parts)
    expected = rows @ rows.T / layer(read).detach().square().sum()
    torch.testing.assert_close(found[group.name], expected)

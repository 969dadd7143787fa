"""What is added to a skip path leaves whole: as if the last layer of the branch answered zero."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

import secateur as sc
from oracle import randomise
from secateur.errors import PlanError, SurgeryError
from secateur.measure.layers import layers_of
from secateur.planning import compose, describe
from secateur.policies import POLICIES, Request
from secateur.policies._allocation import Space, allocate
from secateur.quantities import Quantity
from secateur.repair.compensation import compensate
from secateur.repair.tracing import traces


class Block(nn.Module):
    """A residual block; the sum is written in place, and so is what comes after it."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, hidden, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x):
        y = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        y += x
        return y.relu_()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.blocks = nn.ModuleList(Block(8, 6) for _ in range(3))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.drop(x.mean((2, 3))))


class Reread(nn.Module):
    """The skip path is read again after what was added to it has been written into."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Linear(5, 6), nn.Linear(6, 6)
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        x = self.first(x)
        y = x + self.inner(x)
        y.mul_(2.0)
        return self.last(y) + self.last(x)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.position = nn.Parameter(torch.randn(5, 8))
        self.body = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), 2)
        self.head = nn.Linear(8, 3)

    def forward(self, ids):
        return self.head(self.body(self.embed(ids) + self.position))


class Towers(nn.Module):
    """Without one of the two an input would be read by nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Linear(4, 6), nn.Linear(5, 6)
        self.head = nn.Linear(6, 1)

    def forward(self, user, item):
        return self.head(self.user(user) + self.item(item))


IMAGES = torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(0)).double()
IDS = torch.randint(0, 11, (4, 5), generator=torch.Generator().manual_seed(0))


def drop(structure, *names):
    return describe(structure, {name: (0,) for name in names})


def silenced(model, *layers):
    """A copy whose layers answer zero."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name in layers:
            for tensor in model.get_submodule(name).parameters():
                tensor.zero_()
    return model


@pytest.mark.parametrize(
    ("build", "inputs", "branch", "silent"),
    [
        (Net, IMAGES, "branch:blocks.1.conv2", "blocks.1.norm2"),
        (Net, IMAGES, "branch:blocks.2.conv2", "blocks.2.norm2"),
        (Reread, torch.randn(3, 5).double(), "branch:inner", "inner"),
        (Encoder, IDS, "branch:body.layers.0.linear2", "body.layers.0.linear2"),
        (
            Encoder,
            IDS,
            "branch:body.layers.1.self_attn.out_proj",
            "body.layers.1.self_attn.out_proj",
        ),
    ],
)
def test_a_dropped_branch_is_one_whose_last_layer_answers_zero(build, inputs, branch, silent):
    model = randomise(build(), 0).eval()
    structure = sc.trace(model, inputs)
    pruned = sc.apply(model, drop(structure, branch), inputs)
    expected = silenced(model, silent)(inputs)
    assert torch.allclose(pruned(inputs), expected, rtol=0, atol=1e-12)
    assert not torch.allclose(model(inputs), expected, atol=1e-3)
    assert not any(name.startswith(silent) for name in pruned.state_dict())


def test_it_trains_saves_loads_and_costs_what_is_left(tmp_path):
    model = randomise(Net(), 0).eval()
    structure = sc.trace(model, IMAGES)
    plan = describe(structure, {"branch:blocks.0.conv2": (0,), "blocks.1.conv1": (1, 2)})
    pruned = sc.apply(model, plan, IMAGES)
    again = sc.trace(pruned, IMAGES)
    cost = structure.cost(plan.remove)
    assert cost.params == sum(p.numel() for p in pruned.parameters())
    assert (cost.flops, cost.bytes) == (again.cost({}).flops, again.cost({}).bytes)
    assert sc.PruningPlan.from_json(plan.to_json()) == plan
    sc.save(pruned, tmp_path)
    loaded = sc.load(tmp_path)
    assert torch.equal(loaded(IMAGES), pruned(IMAGES))
    before = {name: value.clone() for name, value in loaded.state_dict().items()}
    loaded.train()
    assert not torch.equal(loaded(IMAGES), loaded(IMAGES))  # dropout
    loaded(IMAGES).square().sum().backward()
    assert all(p.grad is not None for p in loaded.parameters())
    moved = {n for n, value in loaded.state_dict().items() if not torch.equal(value, before[n])}
    assert {"blocks.1.norm1.running_mean", "blocks.1.norm1.num_batches_tracked"} <= moved


def test_layers_of_the_latency_table_are_those_that_are_left():
    model = randomise(Net(), 0).eval()
    structure = sc.trace(model, IMAGES)
    plan = drop(structure, "branch:blocks.0.conv2", "branch:blocks.2.conv2")
    pruned = sc.apply(model, plan, IMAGES)
    found, traffic = layers_of(structure, 4).at(plan.remove)
    right, right_traffic = layers_of(sc.trace(pruned, IMAGES), 4).at({})
    assert Counter(layer for layer in found if 0 not in layer.sizes) == Counter(right)
    assert traffic == right_traffic


def test_no_branch_leaves_an_input_unread_or_is_a_table_alone():
    towers = Towers()
    pair = (torch.randn(2, 4), torch.randn(2, 5))
    assert sc.trace(towers, pair).branches == ()
    names = [branch.name for branch in sc.trace(Encoder().eval(), IDS).branches]
    assert names == [
        f"branch:body.layers.{n}.{last}"
        for n in (0, 1)
        for last in ("self_attn.out_proj", "linear2")
    ]


def test_what_cannot_be_dropped_is_said():
    model = Net().double().eval()
    structure = sc.trace(model, IMAGES)
    with pytest.raises(PlanError, match=r"branch:blocks\.7\.conv2"):
        drop(structure, "branch:blocks.7.conv2")
    with pytest.raises(SurgeryError, match="whole branches leave"):
        sc.apply(model, drop(structure, "branch:blocks.1.conv2"), IMAGES, method="module")


def test_plans_with_branches_are_composed():
    model = randomise(Net(), 0).eval()
    structure = sc.trace(model, IMAGES)
    first = drop(structure, "branch:blocks.0.conv2")
    pruned = sc.apply(model, first, IMAGES)
    left = sc.trace(pruned, IMAGES)
    second = describe(left, {"branch:blocks.2.conv2": (0,), "blocks.1.conv1": (0,)})
    both = compose(first, second, structure)
    one, two = sc.apply(model, both, IMAGES), sc.apply(pruned, second, IMAGES)
    assert torch.allclose(one(IMAGES), two(IMAGES), rtol=0, atol=1e-12)


class Linear(nn.Module):
    """A branch that a linear map of the skip path replaces, and one that it does not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.straight = nn.Linear(6, 6)
        self.up, self.down = nn.Linear(6, 24), nn.Linear(24, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = self.first(x)
        x = x + self.down(self.up(x).abs())
        x = x + self.straight(x)
        return self.head(x)


def test_a_branch_that_the_skip_path_says_costs_nothing_and_is_made_up_for():
    torch.manual_seed(0)
    model = Linear().eval()
    batches = [torch.randn(256, 6) for _ in range(2)]
    structure = sc.trace(model, batches[0])
    _, losses = traces(model, structure, batches, classes=4, branches=structure.branches)
    straight, bent = losses["branch:straight"], losses["branch:down"]
    assert straight < 1e-3 * bent
    remove = {"branch:straight": (0,)}
    found = compensate(model, structure, remove, batches)
    wanted, given = found.wanted[0][0], found.answers[0][0]
    assert float((wanted - given).square().mean()) < 1e-3 * float(wanted.var())


def test_a_branch_that_answers_nothing_has_no_loss():
    model = silenced(randomise(Net(), 0).float().eval(), "blocks.1.norm2")
    batches = [IMAGES.float()]
    structure = sc.trace(model, batches[0])
    _, losses = traces(model, structure, batches, classes=4, branches=structure.branches)
    assert losses["branch:blocks.1.conv2"] == 0
    assert all(loss > 0 for name, loss in losses.items() if name != "branch:blocks.1.conv2")


def costs(weights, inside):
    """Costs that add up; groups inside of a branch cost nothing once it has left."""

    def cost(levels):
        gone = {inner for group, own in inside.items() if levels[group] for inner in own}
        spent = sum(
            weight[level]
            for n, (weight, level) in enumerate(zip(weights, levels, strict=True))
            if n not in gone
        )
        return np.array([spent])

    return cost


@pytest.mark.parametrize("seed", range(30))
def test_whole_branches_and_widths_are_chosen_as_by_brute_force(seed):
    drawn = np.random.default_rng(seed)
    inside = {0: (1, 2), 3: (4,)}
    levels = [2 if n in inside else 4 for n in range(6)]
    weights = [np.sort(drawn.random(n))[::-1] if n > 2 else np.zeros(2) for n in levels]
    errors = [np.concatenate([[0], np.sort(drawn.random(n - 1))]) for n in levels]
    cost = costs(weights, inside)
    limit = 0.6 * cost((0,) * 6)[0]
    space = Space(errors, lambda at: cost(at) / limit, inside)
    every = [at for at in np.ndindex(*levels) if space.holds(at)]
    best = min(map(space.error, every))
    start = tuple(n - 1 for n in levels)
    assert space.error(allocate(space, [start])) <= best + 1e-12


def test_the_knapsack_takes_a_cheap_branch_and_leaves_a_dear_one():
    model = Net().eval()
    structure = sc.trace(model, IMAGES.float())
    scores = {g.name: torch.linspace(1, 2, g.size).double() for g in structure.groups}
    scores["branch:blocks.0.conv2"] = torch.tensor([1e-3]).double()
    scores["branch:blocks.1.conv2"] = torch.tensor([1e3]).double()
    request = Request({"flops": Quantity(0.6, "fraction")}, normalise="none")
    remove = POLICIES.get("knapsack")(scores, structure, request)
    assert remove["branch:blocks.0.conv2"] == (0,)
    assert "branch:blocks.1.conv2" not in remove and "blocks.0.conv1" not in remove
    assert structure.cost(remove).flops <= 0.6 * structure.cost({}).flops
    other = POLICIES.get("uniform")(scores, structure, request)
    assert not any(name.startswith("branch:") for name in other)
    # What has left stays away, under every policy.
    gone = Request({"flops": Quantity(0.5, "fraction")}, removed=remove)
    for policy in ("knapsack", "global", "local", "uniform"):
        later = POLICIES.get(policy)(scores, structure, gone)
        assert later["branch:blocks.0.conv2"] == (0,)


def test_a_rule_that_keeps_a_layer_keeps_the_branch_around_it():
    model = Net().eval()
    with torch.no_grad():  # nothing is cheaper to lose than this branch, whatever was drawn
        model.blocks[1].norm2.weight.mul_(1e-4)
        model.blocks[1].norm2.bias.zero_()
    inputs = IMAGES.float()
    structure = sc.trace(model, inputs)
    data = [(inputs, torch.tensor([0, 1, 2, 3]))]
    plans = [
        sc.plan(model, structure, "obs", {"flops": 0.45}, "knapsack", data, branches=True,
                layers=layers)
        for layers in ({}, {"blocks.1": "keep"})
    ]  # fmt: skip
    assert "branch:blocks.1.conv2" in plans[0].remove
    assert "branch:blocks.1.conv2" not in plans[1].remove

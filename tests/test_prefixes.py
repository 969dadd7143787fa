"""What trials have in common is done once: the same losses, bit by bit, with less work."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import secateur as sc
from secateur.job.racing import Race
from secateur.job.trying import Trying
from secateur.repair.compensation import compensate
from secateur.repair.divergence import divergences
from secateur.repair.prefixes import Prefixes
from secateur.repair.solver import Solver
from secateur.repair.streaming import Side


class Block(nn.Module):
    """Two convolutions beside a skip path; relu in place, as libraries have it."""

    def __init__(self, width: int, inside: int) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in ((width, inside), (inside, width))
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(inside), nn.BatchNorm2d(width)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = functional.relu_(self.norms[0](self.first(x)))
        return functional.relu_(self.norms[1](self.second(inner)) + x)


class Net(nn.Module):
    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.begin = nn.Conv2d(1, 6, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(6, 5) for _ in range(blocks)))
        self.end = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.blocks(functional.relu_(self.begin(x))).mean((2, 3)))


class Attending(nn.Module):
    """One layer of attention: sizes inside depend on what left."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.end = nn.Linear(5, 8), nn.Linear(8, 3)
        self.attend = nn.MultiheadAttention(8, 4, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.feed = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        x = self.norm(x + self.attend(x, x, x, need_weights=False)[0])
        return self.end((x + self.feed(x)).mean(1))


def trying_of(model: nn.Module, shape: tuple[int, ...], batches: int = 4) -> Trying:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    samples = [torch.randn(16, *shape) for _ in range(batches)]
    return Trying(model.eval(), sc.trace(model, samples[0]), samples, 4, 0, False)


def alone(trying: Trying, remove: Any) -> torch.Tensor:
    """In one pass, with nothing from before."""
    fit = list(trying.fit)
    found = compensate(trying.dense, trying.structure, remove, fit, trying.seed, trying.held)
    return divergences(found.wanted[len(fit) :], found.answers[len(fit) :], trying.classes)


def drawn(trying: Trying, generator: random.Random) -> dict[str, tuple[int, ...]]:
    found = {}
    for group in (*trying.structure.groups, *trying.structure.branches):
        count = generator.randrange(group.size)
        if group.name.startswith("branch"):
            count = int(generator.random() < 0.3)
        if count:
            found[group.name] = tuple(sorted(generator.sample(range(group.size), count)))
    return found


@pytest.mark.parametrize(
    ("net", "memory"), [(Net, 2**30), (Net, 2**16), (Attending, 2**30)], ids=str
)
def test_losses_are_those_of_trials_that_share_nothing(net, memory):
    """Random removals, changes of a few groups of earlier ones, and too little memory for all."""
    trying = trying_of(net(), (1, 6, 6) if net is Net else (7, 5))
    trying._prefixes[len(trying.fit)] = Prefixes(trying.structure, memory)
    generator = random.Random(0)
    before = [drawn(trying, generator)]
    for _ in range(8):
        remove = dict(generator.choice(before))
        other = drawn(trying, generator)
        for name in generator.sample(sorted({*remove, *other}), 1):
            remove.pop(name, None)
            remove |= {name: other[name]} if name in other else {}
        before.append(remove)
        assert torch.equal(trying(remove), alone(trying, remove))
    prefixes = trying.prefixes()
    assert (0 < prefixes.spared < prefixes.nodes) or memory < 2**20
    assert sum(state.bytes for state in prefixes._states.values()) <= memory


@pytest.fixture
def work(monkeypatch) -> Counter[str]:
    """Counts layers that are solved, and nodes that are run on a batch."""
    counts: Counter[str] = Counter()
    fit, step = Solver._fit, Side.step

    def counted_fit(self: Any, *args: Any) -> None:
        counts["layers"] += 1
        fit(self, *args)

    def counted_step(self: Any, node: Any) -> None:
        counts["nodes"] += len(self._runs) * (node.op == "call_function")
        step(self, node)

    monkeypatch.setattr(Solver, "_fit", counted_fit)
    monkeypatch.setattr(Side, "step", counted_step)
    return counts


def test_a_trial_that_differs_in_one_group_is_less_work(work):
    trying = trying_of(Net(), (1, 6, 6))
    inner = sorted(
        (group for group in trying.structure.groups if group.size == 5), key=lambda g: g.name
    )
    assert len(inner) == 3
    first = {group.name: (0, 3) for group in trying.structure.groups}
    alone(trying, first)
    whole = dict(work)
    costs = []
    trying(first)
    for group in inner:  # in the order of the net
        work.clear()
        trying({**first, group.name: (1, 2)})
        costs.append(dict(work))
    layers = [cost["layers"] for cost in costs]
    # solved anew are the convolution that makes the group, and what comes behind it
    assert whole["layers"] == 7 and layers == [7, 5, 3]
    nodes = [cost["nodes"] for cost in costs]
    assert whole["nodes"] > nodes[0] > nodes[1] > nodes[2] and nodes[2] < 0.55 * whole["nodes"]
    work.clear()
    trying(first)
    assert work["layers"] == 1  # the last one; all before it are known


def test_a_race_against_a_better_one_ends_before_all_is_read():
    trying = trying_of(Net(), (1, 6, 6), batches=16)
    good = trying.tried({})
    assert good.offered == len(good.losses) == 8 * 16 and good.lost is None
    worse = {group.name: tuple(range(group.size - 1)) for group in trying.structure.groups}
    whole = alone(trying, worse)
    found = trying.tried(worse, Race(good.losses.numpy(), "the best so far"))
    assert found.lost is not None and 32 <= len(found.losses) < 128 == found.offered
    assert torch.equal(found.losses, whole[: len(found.losses)])
    same = trying.tried(worse, Race(whole.numpy() + 0.01, "a worse one"))
    assert same.lost is None and torch.equal(same.losses, whole)


def test_cheap_trials_take_their_share_of_the_samples(work):
    trying = trying_of(Net(), (1, 6, 6), batches=18)
    assert trying.shares == (1 / 9, 1 / 3) and trying_of(Net(), (1, 6, 6), 2).shares == ()
    remove = {group.name: (0,) for group in trying.structure.groups}
    trying(remove)
    nodes = []
    for share in (*trying.shares, 1.0):
        trying._prefixes.clear()
        work.clear()
        assert len(trying.tried(remove, share=share).losses) == round(share * 9 * 16)
        nodes.append(work["nodes"])
    assert nodes[0] * 9 == nodes[1] * 3 == nodes[2]

"""The search over weights of groups: never worse than its start, and no luckiest of many."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from policy_cases import drawn, flops, structure_of
from secateur.policies import POLICIES, Request
from secateur.refining import Table, Trial, Units, refine

REQUEST = Request(flops(0.5), normalise="none")


def search(
    measure: Callable[[Units], tuple[Tensor, float]], trials: int = 20, seconds: float = 1e9
):
    structure = structure_of("wide")
    scores = drawn(structure, 0)
    tables = [Table("knapsack", scores, REQUEST)]
    return structure, scores, refine(tables, structure, measure, trials=trials, seconds=seconds)


def first_group_is_precious(remove: Units) -> tuple[Tensor, float]:
    lost = torch.full((8,), float(len(remove.get("0", ()))), dtype=torch.float64)
    return lost, 1.0


def test_it_finds_what_the_table_does_not_say():
    structure, scores, found = search(first_group_is_precious)
    first = found.trials[0]
    assert first.name == "knapsack"
    assert first.remove == POLICIES.get("knapsack")(scores, structure, REQUEST)
    assert found.trials[1].name == "uniform"
    assert found.best.loss < first.loss
    assert found.best.loss == min(trial.loss for trial in found.trials)


def test_every_trial_keeps_the_budget_and_is_another_one():
    structure, _, found = search(first_group_is_precious)
    limit = 0.5 * structure.cost({}).flops
    assert all(structure.cost(trial.remove).flops <= limit for trial in found.trials)
    seen = [sorted(trial.remove.items()) for trial in found.trials]
    assert all(seen.count(each) == 1 for each in seen)


def test_noise_does_not_win():
    """Losses that say nothing: the contestants win unless a trial is better beyond chance."""
    generator = torch.Generator().manual_seed(0)

    def noise(remove: Units) -> tuple[Tensor, float]:
        return torch.rand(400, generator=generator, dtype=torch.float64), 1.0

    _, _, found = search(noise, trials=30)
    better = [trial for trial in found.trials[2:] if trial.loss < found.trials[0].loss]
    assert better  # some are, by luck
    accepted = found.best.loss
    assert accepted >= 0.5 - 4 * 0.29 / 400**0.5


def test_time_ends_it_but_the_first_answer_always_comes():
    for seconds, expected in ((0.0, 1), (2.5, 2), (4.5, 4)):
        _, _, found = search(first_group_is_precious, seconds=seconds)
        assert len(found.trials) == expected


def test_the_same_seed_gives_the_same_trials():
    _, _, a = search(first_group_is_precious)
    _, _, b = search(first_group_is_precious)
    assert [t.remove for t in a.trials] == [t.remove for t in b.trials]


@pytest.mark.parametrize(("gain", "wins"), [(0.0, False), (0.001, False), (0.2, True)])
def test_beating_means_more_than_one_standard_error_in_pairs(gain, wins):
    base = torch.randn(100, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise = torch.randn(100, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    other = base - gain + 0.3 * (noise - noise.mean())
    assert Trial("a", {}, other, 1.0).beats(Trial("b", {}, base, 1.0)) is wins


def test_a_better_table_takes_the_place_of_the_first():
    structure = structure_of("wide")
    worse = drawn(structure, 0)
    better = worse | {"0": worse["0"] * 1e6}
    asked: list[str] = []

    def tables():
        for name, scores in (("plain", worse), ("again", better)):
            asked.append(name)
            yield Table(name, scores, REQUEST)

    found = refine(tables(), structure, first_group_is_precious, trials=3, seconds=1e9)
    assert asked == ["plain", "again"]
    assert [trial.name for trial in found.trials] == ["plain", "uniform", "again"]
    assert found.best.name == "again"
    asked.clear()
    refine(tables(), structure, first_group_is_precious, trials=2, seconds=1e9)
    assert len(asked) < 3
    with pytest.raises(sc.InputError, match="at least one"):
        refine([], structure, first_group_is_precious, trials=3, seconds=1e9)


def test_time_for_planning_counts_as_well(monkeypatch: pytest.MonkeyPatch):
    """On a large model the knapsack takes longer than the trial that it plans."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    plain = POLICIES.get("knapsack")

    def slow(*given: Any):
        now[0] += 10.0
        return plain(*given)

    monkeypatch.setattr(POLICIES, "get", lambda name: slow)
    _, _, found = search(first_group_is_precious, trials=20, seconds=45.0)
    assert [(trial.planned, trial.seconds) for trial in found.trials] == [(10.0, 1.0)] * 4


def test_what_is_out_of_reach_is_told_with_the_smallest_cost_of_any_table():
    """Whole branches reach further than units; the reference counts what is left of the net."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.first = nn.Linear(8, 8), nn.Linear(8, 40)
            self.second, self.head = nn.Linear(40, 8), nn.Linear(8, 3)

        def forward(self, x):
            x = self.stem(x)
            return self.head(x + self.second(self.first(x).relu()))

    structure = sc.trace(Net(), torch.randn(2, 8))
    units = {group.name: torch.ones(group.size) for group in structure.groups}
    whole = {branch.name: torch.ones(1) for branch in structure.branches}
    assert len(whole) == 1
    request = Request(flops(1e-4), normalise="none")
    tables = [
        Table("units", units, request), Table("branches", units | whole, request),
        Table("again", units, request),
    ]  # fmt: skip
    smallest = 2 * (8 * 1 + 1 * 3) / structure.cost({}).flops  # the skip path, one unit wide
    with pytest.raises(sc.BudgetError) as refused:
        refine(tables, structure, first_group_is_precious, trials=5, seconds=1e9)
    told = float(str(refused.value).partition("smallest reachable is ")[2].partition("%")[0])
    assert told == pytest.approx(100 * smallest, abs=0.01)

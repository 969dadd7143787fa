"""Policies that cut at a threshold, and the ranking by topology."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import secateur as sc
from policy_cases import NETS, choose, drawn, flops, structure_of
from secateur.config import UNBUDGETED, PruningSection
from secateur.policies import POLICIES, Request
from secateur.policies.isomorphic import topology
from zoo import ZOO


def plain(**rules) -> Request:
    return Request({}, normalise="none", **rules)


def test_recipes_know_every_scope():
    scopes = PruningSection.model_fields["scope"].annotation.__args__
    assert set(scopes) - {""} == set(POLICIES.names())


@given(
    net=st.sampled_from(NETS), seed=st.integers(0, 99), theta=st.floats(0, 1.2),
    floor=st.integers(1, 3), share=st.sampled_from([0.0, 0.3]),
    normalise=st.sampled_from(["none", "mean", "max"]),
)  # fmt: skip
def test_what_is_at_most_the_threshold_leaves(net, seed, theta, floor, share, normalise):
    structure = structure_of(net)
    scores = {group.name: s / s.max() for group, s in
              zip(structure.groups, drawn(structure, seed).values(), strict=True)}  # fmt: skip
    request = Request({}, floor=floor, share=share, threshold=theta, normalise=normalise)
    remove = choose("threshold", scores, structure, request)
    for group in structure.groups:
        own = scores[group.name].double()
        own = own / {"none": 1.0, "mean": own.mean(), "max": own.max()}[normalise]
        weakest = own.argsort(stable=True).tolist()
        below = int((own <= theta).sum())
        least = max(floor, int(np.ceil(share * group.size - 1e-9)))
        expected = weakest[: min(below, group.size - min(group.size, least))]
        assert remove.get(group.name, ()) == tuple(sorted(expected))


@given(seed=st.integers(0, 99), kept=st.floats(0.2, 1))
def test_energy_keeps_the_fewest_units_that_hold_it(seed, kept):
    structure = structure_of("wide")
    scores = drawn(structure, seed)
    remove = choose("energy", scores, structure, plain(threshold=kept))
    for name, score in scores.items():
        squares = score.double().square()
        gone = list(remove.get(name, ()))
        stays = [u for u in range(len(score)) if u not in gone]
        whole = float(squares.sum())
        assert float(squares[stays].sum()) >= kept * whole * (1 - 1e-12)
        assert float(squares[stays].sum() - squares[stays].min()) <= kept * whole * (1 + 1e-12)
    if kept == 1:
        assert remove == {}
    louder = {name: 100 * score for name, score in scores.items()}
    assert choose("energy", louder, structure, plain(threshold=kept)) == remove


def test_energy_is_99_percent_where_nothing_is_said():
    structure = structure_of("wide")
    scores = drawn(structure, 0)
    assert choose("energy", scores, structure, plain()) == choose(
        "energy", scores, structure, plain(threshold=0.99)
    )


def test_a_break_cuts_the_group_that_has_one_and_no_other():
    structure = structure_of("wide")
    scores = drawn(structure, 0)
    assert choose("natural-break", scores, structure, plain()) == {}
    weak = torch.randperm(100, generator=torch.Generator().manual_seed(1))[:30].tolist()
    scores["0"] = 1 + 0.2 * scores["0"]
    scores["0"][weak] *= 0.01
    assert choose("natural-break", scores, structure, plain()) == {"0": tuple(sorted(weak))}
    rounded = choose("natural-break", scores, structure, plain(round_to=8))
    assert len(rounded["0"]) == 28 and set(rounded["0"]) <= set(weak)  # 72 stay, not 64


@pytest.mark.parametrize("name", UNBUDGETED)
def test_rules_hold_and_what_left_stays_away(name):
    structure = structure_of("wide")
    scores = drawn(structure, 0)
    scores["0"] = scores["0"] + 1
    scores["0"][:40] *= 0.001
    request = plain(threshold={"threshold": 0.1, "energy": 0.9}.get(name))
    first = choose(name, scores, structure, request)
    assert first
    best = scores["0"].argsort()[-3:].tolist()
    later = choose(name, scores, structure, replace(request, removed={"0": best}))
    assert set(best) <= set(later["0"])
    assert choose(name, scores, structure, replace(request, kept=frozenset({"0"}))).keys() <= {"2"}
    ratio = choose(name, scores, structure, replace(request, ratios={"2": 0.5}))
    assert len(ratio["2"]) == 30
    with pytest.raises(sc.InputError, match="keeps no budget of flops"):
        choose(name, scores, structure, Request(flops(0.5), threshold=request.threshold))


def test_plan_says_what_is_missing_or_too_much():
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3))
    with torch.no_grad():
        model[0].weight[:5] = 0
        model[0].bias[:5] = 0
        model[2].weight[:, :5] = 0
    structure = sc.trace(model, torch.randn(2, 6))
    (group,) = structure.groups
    dead = {group.name: (0, 1, 2, 3, 4)}
    assert sc.plan(model, structure, "l2", scope="threshold", threshold=0.0).remove == dead
    assert sc.plan(model, structure, "l2", scope="natural-break").remove == dead
    assert sc.plan(model, structure, "l2", scope="energy", threshold=1.0).remove == dead
    randomly = sc.plan(model, structure, "random", scope="natural-break")
    assert randomly.remove == {} and randomly.why["no_break"] == [group.name]
    for arguments, said in (
        ({"scope": "threshold"}, "wants a number"),
        ({"scope": "threshold", "threshold": 0.1, "budget": {"flops": 0.5}}, "no budget of flops"),
        ({"scope": "global", "threshold": 0.1}, "has no threshold"),
        ({"scope": "energy", "threshold": 1.5}, "up to 1"),
        ({"scope": "natural-break", "threshold": 0.1}, "finds its threshold itself"),
    ):
        with pytest.raises(sc.InputError, match=said):
            sc.plan(model, structure, "l2", **arguments)


class Mixed(nn.Module):
    """Two depthwise separable blocks of different widths, two plain ones, one of 1x1 kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.points = nn.ModuleList([nn.Conv2d(16, 24, 1), nn.Conv2d(16, 40, 1)])
        self.deeps = nn.ModuleList([nn.Conv2d(w, w, 3, padding=1, groups=w) for w in (24, 40)])
        self.backs = nn.ModuleList([nn.Conv2d(24, 16, 1), nn.Conv2d(40, 16, 1)])
        self.fulls = nn.ModuleList(
            [nn.Conv2d(16, 12, 3, padding=1), nn.Conv2d(16, 20, 3, padding=1)]
        )
        self.ends = nn.ModuleList(
            [nn.Conv2d(12, 16, 3, padding=1), nn.Conv2d(20, 16, 3, padding=1)]
        )
        self.thin, self.back = nn.Conv2d(16, 20, 1), nn.Conv2d(20, 16, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.back(self.thin(x).relu())
        for point, deep, back in zip(self.points, self.deeps, self.backs, strict=True):
            x = x + back(deep(point(x)).relu())
        for full, end in zip(self.fulls, self.ends, strict=True):
            x = x + end(full(x).relu())
        return self.head(x.mean((2, 3)))


def test_only_what_is_built_alike_is_compared():
    torch.manual_seed(0)
    structure = sc.trace(Mixed(), torch.randn(2, 3, 6, 6))
    classes: dict[object, set[str]] = {}
    for group in structure.groups:
        classes.setdefault(topology(group, structure), set()).add(group.name)
    assert sorted(map(sorted, classes.values())) == [
        ["fulls.0", "fulls.1"],
        ["points.0", "points.1"],
        ["stem"],
        ["thin"],
    ]
    # scores of the depthwise blocks are a thousand times those of the plain ones
    generator = torch.Generator().manual_seed(0)
    scores = {
        g.name: torch.rand(g.size, generator=generator) * (1000 if "points" in g.name else 1)
        for g in structure.groups
    }
    request = replace(plain(), budgets=flops(0.5))
    remove = choose("isomorphic", scores, structure, request)
    whole = Counter({topology(g, structure): 0 for g in structure.groups})
    gone = Counter(whole)
    for group in structure.groups:
        whole[topology(group, structure)] += group.size
        gone[topology(group, structure)] += len(remove.get(group.name, ()))
    shares = [gone[kind] / whole[kind] for kind in whole]
    assert max(shares) - min(shares) < 0.1 < min(shares)
    # inside a topology it is one ranking, whatever group a unit is in
    for names in (("points.0", "points.1"), ("fulls.0", "fulls.1")):
        left = [float(scores[n][u]) for n in names for u in remove.get(n, ())]
        stay = [
            float(scores[n][u])
            for n in names
            for u in range(len(scores[n]))
            if u not in remove.get(n, ())
        ]
        assert max(left) <= min(stay)
    # and one over everything takes the plain blocks alone
    everything = choose("global", scores, structure, request)
    assert not any("points" in name for name in everything)


def test_topology_knows_no_names_and_no_widths():
    for net in ("basic_blocks", "swiglu", "packed_attention"):
        entry = ZOO[net]
        torch.manual_seed(0)
        structure = sc.trace(entry.build(), entry.inputs())
        for group in structure.groups:
            renamed = replace(group, name="another")
            assert topology(renamed, structure) == topology(group, structure)
            assert group.name not in repr(topology(group, structure))

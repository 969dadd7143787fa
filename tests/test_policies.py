"""Every policy on real structures: budgets and rules hold, and no more leaves than must."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import secateur as sc
from policy_cases import BUDGETED, NETS, choose, drawn, flops, structure_of, units_left
from secateur.policies import Request
from secateur.quantities import Quantity


@pytest.mark.parametrize("name", BUDGETED)
@given(
    net=st.sampled_from(NETS),
    seed=st.integers(0, 99),
    share=st.floats(0.01, 1),
    params=st.none() | st.floats(0.01, 1),
    round_to=st.sampled_from([1, 1, 2, 4]),
    floor=st.integers(1, 3),
    kept_share=st.sampled_from([0.0, 0.3]),
)
def test_budgets_and_rules_hold_or_it_says_why(
    name, net, seed, share, params, round_to, floor, kept_share
):
    structure = structure_of(net)
    budgets = flops(share)
    if params is not None:
        budgets["params"] = Quantity(params, "fraction")
    request = Request(budgets, round_to, floor, kept_share)
    scores = drawn(structure, seed)
    dense = structure.cost({})
    try:
        remove = choose(name, scores, structure, request)
    except sc.BudgetError as error:
        # what it calls the smallest is out of reach, and can be reached
        for kind, percent in re.findall(r"(flops|params) .*? reachable is ([\d.e+-]+)%",
                                        str(error)):  # fmt: skip
            least = float(percent) / 100
            assert least > budgets[kind].value * 0.99
            request = replace(request, budgets={kind: Quantity(least * 1.006, "fraction")})
            assert choose(name, scores, structure, request)
        assert "smallest reachable" in str(error)
        return
    cost = structure.cost(remove)
    assert cost.flops <= share * dense.flops
    assert params is None or cost.params <= params * dense.params
    for group in structure.groups:
        removed = remove.get(group.name, ())
        assert list(removed) == sorted(set(removed))
        if removed:
            assert group.size - len(removed) >= max(floor, kept_share * group.size)
            gone = scores[group.name][list(removed)]
            stay = [u for u in range(group.size) if u not in removed]
            assert gone.max() <= scores[group.name][stay].min()
    assert choose(name, scores, structure, request) == remove


@pytest.mark.parametrize("name", ["local", "global"])
@given(net=st.sampled_from(NETS), seed=st.integers(0, 99), share=st.floats(0.3, 0.9))
def test_no_unit_can_be_given_back(name, net, seed, share):
    structure = structure_of(net)
    scores = drawn(structure, seed)
    remove = choose(name, scores, structure, Request(flops(share)))
    limit = share * structure.cost({}).flops
    for group, units in remove.items():
        best = max(units, key=lambda unit, of=scores[group]: float(of[unit]))
        fewer = remove | {group: tuple(unit for unit in units if unit != best)}
        assert structure.cost(fewer).flops > limit


@pytest.mark.parametrize("name", BUDGETED)
@given(seed=st.integers(0, 99), share=st.floats(0.1, 0.9), round_to=st.sampled_from([4, 8]))
def test_widths_are_multiples_where_groups_cross(name, seed, share, round_to):
    structure = structure_of("attention")
    assert any(group.overlaps for group in structure.groups)
    request = Request(flops(share), round_to)
    try:
        remove = choose(name, drawn(structure, seed), structure, request)
    except sc.BudgetError:
        request = replace(request, budgets=flops(0.9))
        remove = choose(name, drawn(structure, seed), structure, request)
    for indices in structure.kept(remove).values():
        assert len(indices) % round_to == 0


class PolicyTests:
    """What every policy promises; inherit it and give the name of yours."""

    name: str

    def choose(self, scores, structure, request):
        return choose(self.name, scores, structure, request)

    def test_a_budget_that_dense_meets_removes_nothing(self):
        structure = structure_of("basic_blocks")
        assert self.choose(drawn(structure, 0), structure, Request(flops(1.0))) == {}

    def test_rules_about_groups_are_kept(self):
        structure = structure_of("basic_blocks")
        first, second, *_ = (group.name for group in structure.groups)
        scores = drawn(structure, 0)
        del scores[first]
        request = Request(flops(0.6), kept=frozenset({first}), ratios={second: 0.5})
        remove = self.choose(scores, structure, request)
        assert first not in remove
        assert len(remove[second]) == structure.group(second).size // 2
        assert structure.cost(remove).flops <= 0.6 * structure.cost({}).flops

    def test_ratios_alone_need_no_budget(self):
        structure = structure_of("wide")
        request = Request({}, round_to=8, ratios={"0": 0.3, "2": 0.0})
        left = units_left(structure, self.choose(drawn(structure, 0), structure, request))
        assert left == {"0": 72, "2": 60}  # 72 is the multiple of 8 nearest to 70

    def test_what_left_earlier_stays_away(self):
        structure = structure_of("wide")
        scores = drawn(structure, 0)
        best = scores["0"].argsort()[-9:].tolist()
        request = Request(flops(0.5), removed={"0": best})
        remove = self.choose(scores, structure, request)
        assert set(best) < set(remove["0"])
        assert structure.cost(remove).flops <= 0.5 * structure.cost({}).flops
        nothing = self.choose(scores, structure, replace(request, budgets=flops(1.0)))
        assert nothing == {"0": tuple(sorted(best))}

    def test_a_group_that_costs_nothing_keeps_all(self):
        structure = structure_of("lookup")
        scores = drawn(structure, 0)
        assert "table" in scores
        remove = self.choose(scores, structure, Request(flops(0.3)))
        assert "table" not in remove and "first" in remove
        budgets = {"params": Quantity(0.3, "fraction")}
        assert "table" in self.choose(scores, structure, Request(budgets))

    def test_two_budgets_hold_at_once(self):
        structure = structure_of("lookup")
        params = Quantity(500, "count")
        remove = self.choose(
            drawn(structure, 0), structure, Request(flops(0.7) | {"params": params})
        )
        cost = structure.cost(remove)
        assert cost.params <= 500 and cost.flops <= 0.7 * structure.cost({}).flops

    def test_an_impossible_budget_names_the_smallest_cost(self):
        structure = structure_of("wide")
        least = structure.cost({"0": range(90), "2": range(54)})
        dense = structure.cost({})
        # rounded up: a budget of what it says can be reached
        share = f"{math.ceil(10_000 * least.flops / dense.flops - 1e-9) / 100:g}%"
        with pytest.raises(sc.BudgetError) as caught:
            self.choose(drawn(structure, 0), structure, Request(flops(0.001), share=0.1))
        assert f"the smallest reachable is {share} ({least.flops} of " in str(caught.value)
        assert "round_to=1, floor=1, share=0.1" in str(caught.value)

    def test_scores_that_cannot_be_used_are_named(self):
        structure = structure_of("wide")
        scores = drawn(structure, 0)
        for bad, message in (
            ({"0": scores["0"]}, "group '2' has no scores"),
            (scores | {"2": torch.ones(3)}, r"have shape \[3\]; expected one .* its 60 units"),
            (scores | {"0": torch.full((100,), float("nan"))}, "'0' are not all finite"),
            (scores | {"nil": torch.ones(3)}, "there is no group 'nil'"),
        ):
            with pytest.raises(sc.InputError, match=message):
                self.choose(bad, structure, Request(flops(0.5)))
        with pytest.raises(sc.InputError, match="removed names unit 100 of group '0'"):
            self.choose(scores, structure, Request(flops(0.5), removed={"0": [3, 100]}))


class TestUniform(PolicyTests):
    name = "uniform"

    @given(net=st.sampled_from(NETS), seed=st.integers(0, 99), share=st.floats(0.3, 0.9))
    def test_one_unit_more_in_every_group_is_too_much(self, net, seed, share):
        structure = structure_of(net)
        scores = drawn(structure, seed)
        remove = self.choose(scores, structure, Request(flops(share)))
        fewer = {
            name: tuple(sorted(units, key=lambda unit, of=scores[name]: float(of[unit]))[:-1])
            for name, units in remove.items()
        }
        assert structure.cost(fewer).flops > share * structure.cost({}).flops

    @given(net=st.sampled_from(NETS), seed=st.integers(0, 99), share=st.floats(0.3, 0.9))
    def test_every_group_gives_the_same_share(self, net, seed, share):
        structure = structure_of(net)
        remove = self.choose(drawn(structure, seed), structure, Request(flops(share)))
        removed = {g: len(remove.get(g.name, ())) for g in structure.groups}
        most = max(count / group.size for group, count in removed.items())
        for group, count in removed.items():
            # one step for ties and one given back, unless its floor holds it
            assert count == group.size - 1 or (count + 2) / group.size >= most

    def test_scores_do_not_say_how_many(self):
        structure = structure_of("wide")
        left = {
            tuple(units_left(structure, self.choose(drawn(structure, seed), structure,
                                                    Request(flops(0.4)))).values())
            for seed in range(5)
        }  # fmt: skip
        assert len(left) == 1


class TestLocal(PolicyTests):
    name = "local"

    def test_every_group_gives_the_same_share_of_its_score(self):
        structure = structure_of("wide")
        scores = drawn(structure, 0)
        scores["0"] = scores["0"] ** 4  # many weak units
        remove = self.choose(scores, structure, Request(flops(0.4)))
        lost = {
            name: float(scores[name][list(units)].sum() / scores[name].sum())
            for name, units in remove.items()
        }
        # they differ by the steps around the cut alone: the last unit that left, the next to leave
        step = max(
            float(scores[name].sort().values[len(units)] / scores[name].sum())
            for name, units in remove.items()
        )
        assert abs(lost["0"] - lost["2"]) <= 2 * step < 0.03
        assert len(remove["0"]) / 100 > len(remove["2"]) / 60 + 0.1

    def test_negative_scores_are_refused(self):
        structure = structure_of("wide")
        scores = drawn(structure, 0) | {"0": torch.linspace(-1, 1, 100)}
        with pytest.raises(sc.InputError, match=r"'local' wants scores from 0 up.*'0' has -1"):
            self.choose(scores, structure, Request(flops(0.5)))


class TestKnapsack(PolicyTests):
    name = "knapsack"

    @given(net=st.sampled_from(NETS), seed=st.integers(0, 99), share=st.floats(0.3, 0.9))
    @settings(max_examples=30)
    def test_never_more_loss_than_the_other_policies(self, net, seed, share):
        structure = structure_of(net)
        scores = drawn(structure, seed)
        request = Request(flops(share), normalise="none")
        remove = self.choose(scores, structure, request)
        assert structure.cost(remove).flops <= share * structure.cost({}).flops
        for other in ("uniform", "global"):
            theirs = choose(other, scores, structure, request)
            assert loss_of(scores, remove) <= loss_of(scores, theirs) * (1 + 1e-9)

    @given(seed=st.integers(0, 999), share=st.floats(0.2, 0.9))
    @settings(max_examples=60)
    def test_the_best_of_all_widths_of_a_chain(self, seed, share):
        """Three layers whose costs are products of neighbouring widths: 6 * 7 * 8 choices."""
        structure = structure_of("chain")
        scores = drawn(structure, seed)
        best = least_loss(scores, structure, share)
        remove = self.choose(scores, structure, Request(flops(share), normalise="none"))
        assert loss_of(scores, remove) <= best * (1 + 1e-9)

    @given(seed=st.integers(0, 999), share=st.floats(0.2, 0.9))
    @settings(max_examples=30)
    def test_exact_where_costs_add_up(self, seed, share):
        structure = structure_of("parallel")
        scores = drawn(structure, seed)
        best = least_loss(scores, structure, share)
        remove = self.choose(scores, structure, Request(flops(share), normalise="none"))
        assert loss_of(scores, remove) <= best * (1 + 1e-12)

    @pytest.mark.parametrize("net", ["chain", "parallel", "unequal", "basic_blocks", "swiglu"])
    @pytest.mark.parametrize("share", [0.7, 0.35])
    def test_at_least_as_good_as_100_evaluations_of_a_genetic_search(self, net, share):
        structure = structure_of(net)
        for seed in range(5):
            scores = drawn(structure, seed)
            remove = self.choose(scores, structure, Request(flops(share), normalise="none"))
            theirs = genetic(scores, structure, share, seed)
            assert loss_of(scores, remove) <= theirs * (1 + 1e-9)

    @pytest.mark.parametrize("seed", range(5))
    def test_far_better_than_uniform_where_stages_are_unequal(self, seed):
        structure = structure_of("unequal")
        scores = drawn(structure, seed)
        request = Request(flops(0.5), normalise="none")
        uniform = choose("uniform", scores, structure, request)
        remove = self.choose(scores, structure, request)
        assert loss_of(scores, remove) < 0.5 * loss_of(scores, uniform)


def genetic(scores, structure, share: float, seed: int, evaluations: int = 100) -> float:
    """The least loss that a genetic search finds; choices beyond the budget cost it nothing."""
    generator = np.random.default_rng(seed)
    orders = [scores[group.name].argsort().tolist() for group in structure.groups]
    limit = share * structure.cost({}).flops

    def loss(genes: np.ndarray) -> float:
        counts = [int(gene * (len(order) - 1)) for gene, order in zip(genes, orders, strict=True)]
        pairs = zip(structure.groups, orders, counts, strict=True)
        remove = {group.name: order[:count] for group, order, count in pairs}
        if structure.cost(remove).flops > limit:
            return math.inf
        return loss_of(scores, remove)

    def feasible(make) -> tuple[float, np.ndarray]:
        for _ in range(200):
            genes = make()
            value = loss(genes)
            if value < math.inf:
                return value, genes
        return loss(np.ones(len(orders))), np.ones(len(orders))

    people = [feasible(lambda: generator.random(len(orders))) for _ in range(20)]
    people.sort(key=lambda one: one[0])
    for _ in range(evaluations - len(people)):
        born = feasible(partial(child, [genes for _, genes in people], generator))
        people = sorted([*people, born], key=lambda one: one[0])[:20]
    return people[0][0]


def child(people: list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """Of two winners of tournaments among people, the best of whom comes first."""
    a, b = (people[min(generator.choice(len(people), 3, replace=False))] for _ in range(2))
    genes = np.where(generator.random(len(a)) < 0.5, a, b)
    drift = generator.normal(0, 0.15, len(a)) * (generator.random(len(a)) < 0.4)
    return np.clip(genes + drift, 0, 1)


def loss_of(scores, remove) -> float:
    """What a removal loses, by the scores of what is gone."""
    return sum(float(scores[name][list(units)].double().sum()) for name, units in remove.items())


def least_loss(scores, structure, share) -> float:
    """By trying every width of every group, the lowest scores first."""
    limit = share * structure.cost({}).flops
    orders = {name: s.argsort().tolist() for name, s in scores.items()}
    best = math.inf
    for counts in product(*(range(len(orders[name])) for name in scores)):
        pairs = zip(orders.items(), counts, strict=True)
        remove = {name: order[:count] for (name, order), count in pairs}
        if loss_of(scores, remove) < best and structure.cost(remove).flops <= limit:
            best = loss_of(scores, remove)
    return best


class TestIsomorphic(PolicyTests):
    name = "isomorphic"

    def test_groups_of_one_topology_are_one_ranking(self):
        """Two layers that are built alike: as ``global`` without a scale."""
        structure = structure_of("wide")
        scores = drawn(structure, 0)
        request = Request(flops(0.5), normalise="none")
        assert self.choose(scores, structure, request) == choose(
            "global", scores, structure, request
        )


class TestGlobal(PolicyTests):
    name = "global"

    def test_one_ranking(self):
        structure = structure_of("wide")
        scores = drawn(structure, 0)
        remove = self.choose(scores, structure, Request(flops(0.5)))
        relative = {name: s / s.mean() for name, s in scores.items()}
        highest = max(float(relative[name][list(units)].max()) for name, units in remove.items())
        wrong = [
            (name, unit)
            for name, s in relative.items()
            for unit in range(len(s))
            if unit not in remove[name] and float(s[unit]) < highest
        ]
        # a unit below the last that left stays only because it was given back
        limit = 0.5 * structure.cost({}).flops
        assert structure.cost(remove).flops > limit - 2 * (100 + 4)
        assert len(wrong) <= 2

    @pytest.mark.parametrize("normalise", ["mean", "max", "sum", "size", "none"])
    def test_the_scale_of_a_group_matters_only_without_normalising(self, normalise):
        structure = structure_of("wide")
        scores = {g.name: drawn(structure, 0)[g.name] / 10**i
                  for i, g in enumerate(structure.groups)}  # fmt: skip
        request = Request(flops(0.5), normalise=normalise)
        remove = self.choose(scores, structure, request)
        larger = self.choose(scores | {"0": scores["0"] * 1024}, structure, request)
        assert (larger == remove) is (normalise in ("mean", "max", "sum"))
        if normalise in ("size", "none"):
            assert "0" not in larger

    def test_ties_are_cut_evenly(self):
        structure = structure_of("wide")
        scores = {group.name: torch.ones(group.size) for group in structure.groups}
        remove = self.choose(scores, structure, Request(flops(0.5)))
        assert abs(len(remove["0"]) / 100 - len(remove["2"]) / 60) < 0.05

    def test_negative_scores_need_no_normalising(self):
        structure = structure_of("wide")
        scores = drawn(structure, 0) | {"0": torch.linspace(-1, 1, 100)}
        with pytest.raises(sc.InputError, match="normalise='mean' wants scores from 0 up"):
            self.choose(scores, structure, Request(flops(0.5)))
        assert self.choose(scores, structure, Request(flops(0.5), normalise="none"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"budgets": {"memory": Quantity(0.5, "fraction")}}, "unknown budget 'memory'"),
        ({"round_to": 0}, "round_to is 0"),
        ({"floor": 0.5}, r"floor is 0\.5; give a whole number"),
        ({"share": 1.5}, r"share is 1\.5"),
        ({"ratios": {"a": 1.0}}, "the ratio of group 'a' is 1.0"),
        ({"ratios": {"a": 0.5}, "kept": frozenset("a")}, "'a' is kept and has a ratio"),
        ({"normalise": "means"}, "unknown normaliser 'means': did you mean 'mean'"),
    ],
)
def test_a_request_out_of_range_is_refused(values, message):
    with pytest.raises(sc.InputError, match=message):
        Request(**({"budgets": {}} | values))


def test_the_least_share_is_exact():
    assert Request({}, share=0.1).least(30) == 3
    assert Request({}, share=0.1).least(31) == 4
    assert Request({}, floor=8).least(5) == 5


def test_every_policy_is_tested():
    assert {cls.name for cls in PolicyTests.__subclasses__()} == set(BUDGETED)

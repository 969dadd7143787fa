"""Search algorithms on landscapes whose best point is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from secateur.errors import InputError
from secateur.planning.knapsack import front
from secateur.searching import ALGORITHMS, Discrete, Problem, Real, Space
from secateur.searching._front import hypervolume
from secateur.searching._running import Evaluation, run_search

ENDING = ("bisection", "greedy", "netadapt")  # that end before the trials do
NAMES = (
    "amc", "annealing", "auto", "bisection", "cmaes", "differential", "genetic", "greedy", "grid",
    "halving", "netadapt", "nsga2", "random", "reinforce", "swarm", "tpe",
)  # fmt: skip
LEARNING = tuple(name for name in NAMES if name not in ("bisection", "grid", "random"))
GROUPS, LEVELS, LIMIT = 8, 9, 0.5


def test_all_algorithms_are_known():
    assert set(ALGORITHMS.names()) == set(NAMES)


class Widths:
    """Groups that lose by a power of what leaves, and interact; costs add up."""

    def __init__(self, seed: int = 0, crossing: float = 0.3) -> None:
        drawn = np.random.default_rng(seed)
        self.weights = drawn.random(GROUPS) + 0.2
        self.losses = drawn.exponential(size=GROUPS)
        self.powers = 1.5 + 2 * drawn.random(GROUPS)
        self.crossing = crossing * np.abs(drawn.standard_normal((GROUPS, GROUPS)))
        self.space = Space(tuple(Discrete(f"g{n}", tuple(range(LEVELS))) for n in range(GROUPS)))

    def cost(self, point):
        left = 1 - np.array(point) / LEVELS
        return float(self.weights @ left / self.weights.sum())

    def single(self, group, level):
        return float(self.losses[group] * (level / LEVELS) ** self.powers[group])

    def value(self, point):
        gone = np.array(point) / LEVELS
        own = sum(self.single(n, level) for n, level in enumerate(point))
        return own + float(gone**2 @ self.crossing @ gone**2)

    def repair(self, point):
        """Towards nothing left until the limit holds, and back as far as it does."""
        levels = np.array(point, float)
        low, high = 0.0, 1.0
        if self.cost(point) > LIMIT:
            for _ in range(30):
                middle = (low + high) / 2
                moved = np.ceil(levels + middle * (LEVELS - 1 - levels) - 1e-9)
                low, high = (low, middle) if self.cost(moved) <= LIMIT else (middle, high)
            levels = np.ceil(levels + high * (LEVELS - 1 - levels) - 1e-9)
        for group in np.argsort(-self.losses):
            while levels[group] and self.cost(levels - (np.arange(GROUPS) == group)) <= LIMIT:
                levels[group] -= 1
        found = tuple(int(level) for level in levels)
        return found if self.cost(found) <= LIMIT else None

    def solve(self, weights):
        costs = [
            self.weights[n] / self.weights.sum() * (1 - np.arange(LEVELS) / LEVELS)
            for n in range(GROUPS)
        ]
        errors = [
            np.array([weights[f"g{n}"] * self.single(n, level) for level in range(LEVELS)])
            for n in range(GROUPS)
        ]
        found = front(costs, errors)
        return tuple(found.levels[found.best(LIMIT)].tolist())

    def problem(self, seeded: bool) -> Problem:
        table = {f"g{n}": [self.single(n, k) for k in range(LEVELS)] for n in range(GROUPS)}
        uniform = self.repair((LEVELS // 2,) * GROUPS)
        knapsack = self.solve(dict.fromkeys(table, 1.0))
        return Problem(
            self.space, self.repair, (knapsack, uniform) if seeded else (), table, self.solve,
            cost=lambda point: self.cost(point) / LIMIT,
        )  # fmt: skip


def searched(name, problem, evaluate, trials, seed=0, **more):
    algorithm = ALGORITHMS.get(name)(problem, seed, trials)
    return run_search(problem, algorithm, evaluate, trials=trials, **more)


@pytest.mark.parametrize("name", NAMES)
def test_every_trial_keeps_the_limit_is_new_and_the_seed_decides(name):
    widths = Widths()
    found = searched(name, widths.problem(True), widths.value, 30)
    points = [trial.point for trial in found.trials]
    assert len(points) == len(set(points))
    assert len(points) == 30 or (name in ENDING and 3 < len(points) < 30)
    assert all(widths.cost(point) <= LIMIT for point in points)
    assert found.best.value == min(widths.value(point) for point in points)
    again = searched(name, widths.problem(True), widths.value, 30)
    assert [t.point for t in again.trials] == points
    other = searched(name, widths.problem(True), widths.value, 30, seed=1)
    if name not in ("bisection", "netadapt"):  # they draw nothing
        assert [t.point for t in other.trials] != points
    assert points[0] == widths.problem(True).seeds[0]


@pytest.mark.parametrize("name", LEARNING)
def test_what_learns_beats_random_from_nowhere(name):
    """Means over three landscapes at 60 evaluations, without seeds."""

    def mean(algorithm):
        return np.mean([
            searched(algorithm, Widths(n).problem(False), Widths(n).value, 60, seed=n).best.value
            for n in range(3)
        ])  # fmt: skip

    assert mean(name) < mean("random")


def test_auto_at_twenty_beats_all_others_at_fifty_where_the_table_is_nearly_right():
    landscapes = [Widths(n, crossing=0.1) for n in range(5)]
    auto = [searched("auto", w.problem(True), w.value, 20).best.value for w in landscapes]
    for name in NAMES:
        if name != "auto":
            other = [searched(name, w.problem(False), w.value, 50).best.value for w in landscapes]
            assert np.mean(auto) < np.mean(other), name
    uniform = [w.value(w.problem(True).seeds[1]) for w in landscapes]
    assert all(a <= u for a, u in zip(auto, uniform, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_it_goes_on_where_it_was_cut_off(name):
    widths = Widths()
    whole = searched(name, widths.problem(True), widths.value, 25)
    known = {trial.point: trial for trial in whole.trials[:11]}
    new = []

    def evaluate(point):
        new.append(point)
        return widths.value(point)

    again = searched(name, widths.problem(True), evaluate, 25, known=known)
    assert [t.point for t in again.trials] == [t.point for t in whole.trials]
    assert new == [trial.point for trial in whole.trials[11:]]
    assert new or name in ENDING


@pytest.mark.parametrize("name", NAMES)
def test_failures_are_trials_and_the_search_goes_on(name):
    widths = Widths()
    count = 0

    def evaluate(point):
        nonlocal count
        count += 1
        if count % 3 == 0:
            raise ValueError("no luck")
        return math.nan if count % 3 == 1 else widths.value(point)

    found = searched(name, widths.problem(True), evaluate, 20)
    errors = [trial.error for trial in found.trials]
    assert len(errors) == 20 or name in ENDING
    assert math.isfinite(found.best.value)
    assert {"ValueError: no luck", "the value is nan", ""} == set(errors)


def test_a_search_in_which_everything_fails_says_why():
    widths = Widths()
    with pytest.raises(InputError, match=r"all 5 trials failed.*nan"):
        searched("random", widths.problem(False), lambda point: math.nan, 5)
    with pytest.raises(InputError, match="keeps the constraints"):
        searched("random", Problem(widths.space, lambda point: None), widths.value, 5)
    with pytest.raises(InputError, match="trials is 0"):
        searched("random", widths.problem(False), widths.value, 0)


def test_time_ends_a_search():
    widths = Widths()
    slow = {}
    known = {}
    for trial in searched("random", widths.problem(False), widths.value, 10).trials:
        slow[trial.point] = trial.value
        known[trial.point] = Evaluation(trial.point, trial.values, 10.0)
    found = searched("random", widths.problem(False), widths.value, 20, known=known, seconds=105.0)
    assert len(found.trials) == 10


MIXED = Space((
    Discrete("criterion", ("l1", "l2", "taylor"), ordered=False),
    Discrete("rounds", (1, 2, 4, 8)),
    Discrete("rewind", (0, 1, 2), when=("rounds", (4, 8))),
    Real("rate", 1e-4, 1e-1, log=True),
))  # fmt: skip


def mixed(point):
    criterion, rounds, rewind, rate = point
    return (
        (criterion != "taylor")
        + abs(math.log2(rounds) - 2)
        + (rewind - 1) ** 2
        + (math.log10(rate) + 2) ** 2
    )


@pytest.mark.parametrize("name", NAMES)
def test_mixed_and_conditional_parameters(name):
    found = searched(name, Problem(MIXED), mixed, 120)
    assert all(
        rewind == 0 for _, rounds, rewind, _ in (t.point for t in found.trials) if rounds < 4
    )
    if name not in ("bisection", "netadapt"):  # all parameters alike, and ordered ones alone
        assert found.best.value < (2.0 if name in ("grid", "random") else 1.2), found.best


def test_spaces_refuse_what_makes_no_sense():
    with pytest.raises(InputError, match="all different"):
        Discrete("x", (1, 1))
    with pytest.raises(InputError, match="low < high"):
        Real("x", 2, 1)
    with pytest.raises(InputError, match="by its logarithm and needs low above 0"):
        Real("x", 0, 1, log=True)
    with pytest.raises(InputError, match="two parameters"):
        Space((Discrete("x", (1,)), Discrete("x", (2,))))
    with pytest.raises(InputError, match="does not come before"):
        Space((Discrete("x", (1,), when=("y", (1,))), Discrete("y", (1, 2))))


def test_places_and_values_are_inverse():
    generator = np.random.default_rng(0)
    for _ in range(100):
        point = MIXED.sample(generator)
        assert MIXED.decode(MIXED.encode(point))[:3] == point[:3]
        assert math.isclose(MIXED.decode(MIXED.encode(point))[3], point[3])


SEVERAL = ("grid", "nsga2", "random", "tpe")


class Shapes:
    """Loss and cost of the widths; both are to be small, and pull against each other."""

    def __init__(self, seed: int = 0) -> None:
        self.widths = Widths(seed)
        self.reference = (self.widths.value((LEVELS - 1,) * GROUPS) * 1.01, 1.01)

    def values(self, point):
        return self.widths.value(point), self.widths.cost(point)

    def problem(self):
        return Problem(self.widths.space, objectives=2)


@pytest.mark.parametrize("name", SEVERAL)
def test_several_objectives_give_a_front(name):
    shapes = Shapes()
    found = searched(name, shapes.problem(), shapes.values, 40)
    assert [t.values for t in found.trials] == [shapes.values(t.point) for t in found.trials]
    front = [trial.values for trial in found.front]
    assert front and front == sorted(front)
    for trial in found.trials:  # a front: no other trial is at least as good in both
        better = [
            t for t in found.trials
            if t.values != trial.values
            and all(a <= b for a, b in zip(t.values, trial.values, strict=True))
        ]  # fmt: skip
        assert (trial in found.front) == (not better)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(SEVERAL)))
def test_algorithms_of_one_objective_say_so(name):
    with pytest.raises(InputError, match=f"{name}.*one objective and 2 are given"):
        searched(name, Shapes().problem(), Shapes().values, 10)


def test_nsga2_covers_more_than_random():
    """Hypervolume at 200 evaluations, mean over five landscapes, without seeds."""

    def covered(name, seed):
        shapes = Shapes(seed)
        found = searched(name, shapes.problem(), shapes.values, 200, seed=seed)
        values = [trial.values for trial in found.trials]
        return hypervolume(values, shapes.reference)

    ours, blind = ([covered(name, seed) for seed in range(5)] for name in ("nsga2", "random"))
    assert np.mean(ours) > np.mean(blind), (ours, blind)


def test_hypervolume_is_the_area_of_the_staircase():
    generator = np.random.default_rng(0)
    for objectives in (2, 3):
        points = generator.random((12, objectives))
        drawn = generator.random((200_000, objectives))
        covered = (drawn[:, None] >= points[None]).all(2).any(1).mean()
        assert math.isclose(hypervolume(points, [1.0] * objectives), covered, abs_tol=0.005)
    assert hypervolume([(0.5, 0.5), (2.0, 0.0), (math.inf, 0.0)], (1, 1)) == 0.25
    assert hypervolume([(2.0, 0.0)], (1, 1)) == 0.0


def test_values_that_do_not_fit_the_objectives_are_failures():
    found = searched(
        "random", Shapes().problem(),
        lambda point: (1.0, 2.0) if sum(point) % 2 else (1.0, 2.0, 3.0), 20,
    )  # fmt: skip
    errors = {trial.error for trial in found.trials}
    assert errors == {"", "3 values were given for 2 objectives"}
    assert all(math.isfinite(trial.value) for trial in found.front)


def test_bisection_finds_the_largest_equal_cut_that_does_not_fail():
    """The compression is to be large, and a drop above a limit fails: the edge is found."""
    space = Space((Discrete("a", tuple(range(50))), Discrete("b", tuple(range(50)))))
    for edge in (3, 17, 31, 48):
        found = searched(
            "bisection", Problem(space),
            lambda point, edge=edge: -sum(point) if max(point) <= edge else math.nan, 40,
        )  # fmt: skip
        assert found.best.point == (edge, edge)
        assert len(found.trials) < 15


def test_netadapt_takes_the_group_that_loses_least_in_each_step():
    """Two groups of equal cost, one of which loses nothing: it pays for all."""
    space = Space((Discrete("dear", tuple(range(9))), Discrete("free", tuple(range(9)))))

    def repair(point):  # both alike, in turn
        dear, free = point
        while dear + free < 8:
            dear, free = (dear + 1, free) if (dear + free) % 2 else (dear, min(8, free + 1))
        return dear, free

    found = searched(
        "netadapt", Problem(space, repair, cost=lambda point: (16 - sum(point)) / 8),
        lambda point: point[0] + 0.01 * point[1], 12,
    )  # fmt: skip
    assert found.best.point == (0, 8)


def test_greedy_climbs_down_where_parameters_do_not_interact():
    space = Space(tuple(Discrete(f"p{n}", tuple(range(11))) for n in range(5)))
    goal = (2, 9, 5, 0, 7)

    def distance(point):
        return sum((a - b) ** 2 for a, b in zip(point, goal, strict=True))

    found = searched("greedy", Problem(space), distance, 120)
    assert found.best.point == goal and len(found.trials) < 120


def test_points_that_differ_by_rounding_alone_are_evaluated_once():
    """And so do not values of a list, however near they are."""
    near = Discrete("near", (1.0, 1.0 + 1e-12))
    space = Space((Real("rate", 0.0, 1.0), near))
    first = 0.042825960119970995
    rates = (first, math.nextafter(first, 1), first * (1 + 1e-7))
    asked = [(rate, value) for value in near.values for rate in rates]
    told = []

    class Listed:
        def __init__(self):
            self.left = list(asked)

        def ask(self):
            return self.left.pop(0) if self.left else None

        def tell(self, point, values):
            told.append((point, values))

    calls = []

    def evaluate(point):
        calls.append(point)
        return float(len(calls))

    for parallel in (1, 3):
        told.clear(), calls.clear()
        found = run_search(Problem(space), Listed(), evaluate, trials=9, parallel=parallel)
        assert calls == [asked[n] for n in (0, 2, 3, 5)]
        assert [trial.point for trial in found.trials] == calls
        assert told == list(zip(asked, [(n,) for n in (1.0, 1.0, 2.0, 3.0, 3.0, 4.0)], strict=True))
    known = {trial.point: trial for trial in found.trials[:2]}
    calls.clear()
    run_search(Problem(space), Listed(), evaluate, trials=9, known=known)
    assert calls == [asked[3], asked[5]]

"""The dynamic program beside trying every choice."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from secateur.planning.knapsack import front

TABLES = st.lists(st.integers(1, 5), min_size=1, max_size=5)


def tables(sizes: list[int], seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Costs and errors at random: whole numbers, so that ties occur, and neither is monotone."""
    generator = np.random.default_rng(seed)
    costs = [generator.integers(0, 20, size).astype(float) for size in sizes]
    errors = [generator.integers(0, 20, size).astype(float) for size in sizes]
    return costs, errors


def every_choice(costs, errors) -> list[tuple[float, float]]:
    levels = product(*(range(len(c)) for c in costs))
    return [
        (sum(c[i] for c, i in zip(costs, choice, strict=True)),
         sum(e[i] for e, i in zip(errors, choice, strict=True)))
        for choice in levels
    ]  # fmt: skip


@given(TABLES, st.integers(0, 10_000))
def test_the_front_is_that_of_every_choice(sizes, seed):
    costs, errors = tables(sizes, seed)
    choices = every_choice(costs, errors)
    expected = sorted(
        {(c, e) for c, e in choices if not any(
            (x <= c and y < e) or (x < c and y <= e) for x, y in choices)}
    )  # fmt: skip
    found = front(costs, errors)
    assert list(zip(found.costs.tolist(), found.errors.tolist(), strict=True)) == expected
    for levels, cost, error in zip(found.levels, found.costs, found.errors, strict=True):
        assert sum(c[i] for c, i in zip(costs, levels, strict=True)) == cost
        assert sum(e[i] for e, i in zip(errors, levels, strict=True)) == error


@given(TABLES, st.integers(0, 10_000), st.integers(0, 60))
def test_the_best_under_a_limit(sizes, seed, limit):
    costs, errors = tables(sizes, seed)
    fits = [e for c, e in every_choice(costs, errors) if c <= limit]
    for found in (front(costs, errors), front(costs, errors, limit=limit)):
        best = found.best(limit)
        assert (best < 0) == (not fits)
        if fits:
            assert found.errors[best] == min(fits)
            assert found.costs[best] <= limit


def test_thinned_states_keep_the_budget_and_lose_next_to_nothing():
    generator = np.random.default_rng(0)
    costs = [np.sort(generator.random(30))[::-1] for _ in range(40)]
    errors = [np.sort(generator.random(30)) for _ in range(40)]
    exact, thin = front(costs, errors, states=10**6), front(costs, errors, states=2_000)
    assert len(thin.costs) <= 2_001
    for limit in np.linspace(thin.costs[0], thin.costs[-1], 50):
        at = thin.best(limit)
        spent = sum(c[i] for c, i in zip(costs, thin.levels[at], strict=True))
        assert spent <= limit * (1 + 1e-12)
        assert thin.errors[at] <= exact.errors[exact.best(limit)] * 1.01 + 1e-9
    assert thin.costs[0] == exact.costs[0]


def test_no_group_is_one_choice_that_costs_nothing():
    found = front([], [])
    assert found.costs.tolist() == [0.0] and found.levels.shape == (1, 0)

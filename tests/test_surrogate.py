"""The model of values behind ``auto``."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy.stats import spearmanr

from secateur.searching import Discrete, Problem, Space
from secateur.searching import _surrogate as surrogate
from secateur.searching._surrogate import Rows, Surrogate
from secateur.searching.auto import Auto

GROUPS, LEVELS = 8, 6
Value = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def rows_of(levels: np.ndarray, losses: np.ndarray) -> Rows:
    way = levels / (LEVELS - 1)
    return Rows(way, losses[np.arange(GROUPS), levels], way)


def spread(drawn: np.random.Generator, count: int) -> np.ndarray:
    """int [count, groups]: levels that sum to the same, as under a limit."""
    found = []
    while len(found) < count:
        levels = drawn.integers(0, LEVELS, GROUPS)
        if levels.sum() == 20:
            found.append(levels)
    return np.array(found)


@pytest.mark.parametrize("mix", list(product((0.1, 1.0), repeat=3))[:4])
def test_variances_are_the_diagonal_of_the_covariance(mix):
    drawn = np.random.default_rng(0)
    rows = rows_of(spread(drawn, 30), drawn.random((GROUPS, LEVELS)).cumsum(1))
    model = Surrogate(rows, drawn.random(30), rows)
    whole = (*mix, *mix, 0.3, 0.01)
    np.testing.assert_allclose(
        np.diag(model._mixed(model._parts(rows, rows), whole)), model._own(rows, whole), rtol=1e-12
    )


def order_found(value: Value, count: int) -> float:
    """How well the improvement to expect after ``count`` values orders further points (rank
    correlation with what they gain), a mean over draws. value: of levels."""
    found = []
    for seed in range(12):
        drawn = np.random.default_rng(seed)
        levels = spread(drawn, 120)
        rows = rows_of(levels, drawn.random((GROUPS, LEVELS)).cumsum(1))
        values = value(levels, drawn)
        told, rest = slice(0, count), slice(count, None)
        model = Surrogate(rows_at(rows, told), values[told], rows)
        expected = model.improvement(rows_at(rows, rest), float(values[told].max()))
        found.append(spearmanr(expected, -values[rest]).statistic)
    return float(np.mean(found))


def rows_at(rows: Rows, which: slice) -> Rows:
    return Rows(rows.places[which], rows.losses[which], rows.gone[which])


def rising(levels: np.ndarray, drawn: np.random.Generator) -> np.ndarray:
    """Each group loses by its own weight, of which the table knows nothing."""
    return (drawn.exponential(size=GROUPS) * (levels / LEVELS) ** 2.2).sum(1)


def bumpy(levels: np.ndarray, drawn: np.random.Generator) -> np.ndarray:
    """Each two groups lose by what both have lost, as it comes."""
    pair = drawn.random((GROUPS, GROUPS, LEVELS, LEVELS))
    first, second = np.triu_indices(GROUPS, 1)
    return pair[first, second, levels[:, first], levels[:, second]].sum(1)


def test_losses_that_rise_are_learnt_where_the_table_is_wrong(monkeypatch):
    with_rises = order_found(rising, 12)
    monkeypatch.setattr(surrogate, "RISES", (0.0,))
    monkeypatch.setattr(surrogate, "EVEN", 0.0)
    without = order_found(rising, 12)
    assert with_rises > without + 0.05


def test_what_pairs_do_together_is_learnt(monkeypatch):
    with_pairs = order_found(bumpy, 40)
    monkeypatch.setattr(surrogate, "PAIRS", (0.0,))
    without = order_found(bumpy, 40)
    assert with_pairs > without + 0.03


def test_the_way_goes_from_the_least_loss_of_the_table_to_its_largest():
    space = Space((Discrete("removed", (0, 1, 2)), Discrete("left", (10, 20, 30))))
    table = {"removed": [0.0, 0.1, 0.9], "left": [0.9, 0.1, 0.0]}
    problem = Problem(space, lambda point: point, (), table, lambda weights: (0, 30))
    rows = Auto(problem, 0, 10)._row((1, 10))
    np.testing.assert_allclose(rows.gone, [[0.5, 1.0]])
    np.testing.assert_allclose(rows.losses, [[0.1, 0.9]])

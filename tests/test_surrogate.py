"""The model of values behind ``auto``."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from secateur.searching import Discrete, Problem, Space
from secateur.searching import _surrogate as surrogate
from secateur.searching._comparing import Cell, search_landscape
from secateur.searching._landscapes import landscape
from secateur.searching._surrogate import Rows, Surrogate
from secateur.searching.auto import Auto

GROUPS, LEVELS = 8, 6


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
    whole = (*mix, *mix, 0.01)
    np.testing.assert_allclose(
        np.diag(model._mixed(model._parts(rows, rows), whole)), model._own(rows, whole), rtol=1e-12
    )


def test_losses_that_rise_are_learnt_where_the_table_is_wrong(monkeypatch):
    """Means over landscapes that no setting was chosen on, at 20 evaluations."""

    def mean() -> float:
        found = []
        for number in range(20, 28):
            place = landscape("deceptive", number)
            line = search_landscape(place, Cell("", "", "auto", True, 0, 20))
            found.append((min(line.values) - place.best) / place.values.std())
        return float(np.mean(found))

    with_rises = mean()
    monkeypatch.setattr(surrogate, "RISES", (0.0,))
    monkeypatch.setattr(surrogate, "EVEN", 0.0)
    assert with_rises < mean()


def test_the_way_goes_from_the_least_loss_of_the_table_to_its_largest():
    space = Space((Discrete("removed", (0, 1, 2)), Discrete("left", (10, 20, 30))))
    table = {"removed": [0.0, 0.1, 0.9], "left": [0.9, 0.1, 0.0]}
    problem = Problem(space, lambda point: point, (), table, lambda weights: (0, 30))
    rows = Auto(problem, 0, 10)._row((1, 10))
    np.testing.assert_allclose(rows.gone, [[0.5, 1.0]])
    np.testing.assert_allclose(rows.losses, [[0.1, 0.9]])

"""The kernel of compensation against least squares, brute force, and what theory says of it."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.repair.removal import (
    Consumer,
    consumer,
    downdated,
    exchanged,
    inverted,
    refitted,
    removal_error,
    removal_update,
    trace,
)

SAMPLES = 400


def drawn(seed: int, inputs: int, outputs: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """A weight [outputs, inputs] and correlated inputs [inputs, samples]."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(inputs, inputs))
    x = mixing @ generator.normal(size=(inputs, SAMPLES))
    return generator.normal(size=(outputs, inputs)), x


def moment(x: np.ndarray) -> np.ndarray:
    return x @ x.T / x.shape[1]


def least_squares(w: np.ndarray, x: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, float]:
    """The oracle: the best weight on the kept rows of x, and the squared error by sample."""
    best = np.linalg.lstsq(x[kept].T, (w @ x).T, rcond=None)[0].T
    return best, float(((w @ x - best @ x[kept]) ** 2).sum() / x.shape[1])


def singles(inputs: int, k: int = 1) -> np.ndarray:
    return np.arange(inputs).reshape(-1, k)


@given(seed=st.integers(0, 10_000), inputs=st.integers(4, 9))
@settings(max_examples=15, deadline=None)
def test_error_and_update_are_those_of_least_squares(seed: int, inputs: int) -> None:
    w, x = drawn(seed, inputs)
    inverse = inverted(moment(x))
    for size in (1, 2, 3):
        for columns in map(list, combinations(range(inputs), size)):
            kept = np.setdiff1d(np.arange(inputs), columns)
            best, error = least_squares(w, x, kept)
            removed = np.array(columns)
            assert removal_error(w, inverse, removed) == pytest.approx(error, rel=1e-8)
            found = w + removal_update(w, inverse, removed)
            np.testing.assert_allclose(found[:, kept], best, rtol=1e-7, atol=1e-9)
            assert (found[:, columns] == 0).all()
            np.testing.assert_allclose(refitted(w, moment(x), kept), best, rtol=1e-7, atol=1e-9)
            rest = downdated(inverse, removed)[np.ix_(kept, kept)]
            np.testing.assert_allclose(rest, np.linalg.inv(moment(x[kept])), rtol=1e-6)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("batch", [1, 4])
def test_every_level_of_a_trace_is_the_error_of_what_left(k: int, batch: int) -> None:
    w, x = drawn(3, 24)
    columns = np.random.default_rng(0).permutation(24).reshape(-1, k)
    found = trace([Consumer(w, moment(x), columns)], batch)
    assert sorted(found.order) == list(range(24 // k))
    for level in range(0, 24 // k + 1, batch):
        kept = np.setdiff1d(np.arange(24), columns[found.order[:level]])
        error = least_squares(w, x, kept)[1]
        assert found.errors[level] == pytest.approx(error, rel=1e-7, abs=1e-9)
    assert (np.diff(found.errors) >= 0).all()


def test_several_consumers_count_together_and_other_inputs_stay() -> None:
    (w1, x1), (w2, x2) = drawn(0, 10), drawn(1, 12, outputs=2)
    first, second = singles(8), np.arange(2, 10)[::-1].reshape(-1, 1)
    found = trace([Consumer(w1, moment(x1), first), Consumer(w2, moment(x2), second)])
    for level in range(9):
        gone = found.order[:level]
        error = sum(
            least_squares(w, x, np.setdiff1d(np.arange(len(x)), columns[gone]))[1]
            for w, x, columns in ((w1, x1, first), (w2, x2, second))
        )
        assert found.errors[level] == pytest.approx(error, rel=1e-7, abs=1e-9)


def test_a_copy_costs_nothing_and_its_weight_moves() -> None:
    w, x = drawn(5, 6)
    x[4] = x[1]
    at = consumer(w, moment(x), singles(6), damping=1e-9)
    inverse = inverted(at.hessian)
    assert removal_error(w, inverse, np.array([4])) < 1e-6 * at.energy
    found = w + removal_update(w, inverse, np.array([4]))
    np.testing.assert_allclose(found[:, 1], w[:, 1] + w[:, 4], rtol=1e-5)
    np.testing.assert_allclose(found[:, [0, 2, 3, 5]], w[:, [0, 2, 3, 5]], rtol=1e-4, atol=1e-6)


def test_a_dead_input_costs_exactly_nothing_and_leaves_first() -> None:
    w, x = drawn(6, 7)
    x[3] = 0
    at = consumer(w, moment(x), singles(7))
    assert removal_error(at.weight, inverted(at.hessian), np.array([3])) == 0
    found = trace([at])
    assert found.order[0] == 3 and found.errors[1] == 0


def test_orthogonal_inputs_give_the_order_of_wanda_and_white_ones_that_of_magnitude() -> None:
    generator = np.random.default_rng(7)
    w, norms = generator.normal(size=(3, 12)), generator.uniform(0.5, 3, 12)
    found = trace([Consumer(w, np.diag(norms**2), singles(12))])
    np.testing.assert_array_equal(found.order, np.argsort((w**2).sum(0) * norms**2))
    found = trace([Consumer(w, np.eye(12), singles(12))])
    np.testing.assert_array_equal(found.order, np.argsort((w**2).sum(0)))
    np.testing.assert_allclose(found.errors[1:], np.cumsum(np.sort((w**2).sum(0))))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_names_of_inputs_and_directions_of_outputs_do_not_matter(seed: int) -> None:
    w, x = drawn(seed, 9)
    generator = np.random.default_rng(seed)
    plain = trace([Consumer(w, moment(x), singles(9))])
    order = generator.permutation(9)
    renamed = trace([Consumer(w[:, order], moment(x[order]), singles(9))])
    np.testing.assert_array_equal(order[renamed.order], plain.order)
    turn = np.linalg.qr(generator.normal(size=(4, 4)))[0]
    turned = trace([Consumer(turn @ w, moment(x), singles(9))])
    np.testing.assert_array_equal(turned.order, plain.order)
    # each is a difference of sums as large as the last: digits are lost in that scale
    np.testing.assert_allclose(
        turned.errors, plain.errors, rtol=1e-7, atol=1e-10 * plain.errors[-1]
    )


def test_greedy_and_exchange_beside_every_subset() -> None:
    greedy, exchange = [], []
    for seed in range(12):
        w, x = drawn(seed, 10)
        found = trace([Consumer(w, moment(x), singles(10))])
        best = min(least_squares(w, x, np.array(kept))[1] for kept in combinations(range(10), 5))
        assert found.errors[5] >= best * (1 - 1e-9)
        without = (w[:, found.order[:5]] @ x[found.order[:5]]) ** 2
        assert found.errors[5] <= without.sum() / SAMPLES
        greedy.append(found.errors[5] / best - 1)
        units, error = exchanged([Consumer(w, moment(x), singles(10))], found.order[:5])
        assert error == pytest.approx(
            least_squares(w, x, np.setdiff1d(np.arange(10), units))[1], rel=1e-7
        )
        assert len(set(units.tolist())) == 5 and error <= found.errors[5] * (1 + 1e-9)
        exchange.append(error / best - 1)
    gaps = f"above the optimum: greedy {np.mean(greedy):.1%}, exchange {np.mean(exchange):.1%}"
    print(gaps)
    assert np.mean(exchange) < np.mean(greedy) / 2, gaps


def test_an_ill_conditioned_trace_stays_right_to_a_millionth() -> None:
    generator = np.random.default_rng(8)
    turn = np.linalg.qr(generator.normal(size=(64, 64)))[0]
    hessian = turn @ np.diag(np.logspace(0, -9, 64)) @ turn.T
    hessian = (hessian + hessian.T) / 2
    w = generator.normal(size=(16, 64))
    at = Consumer(w, hessian, singles(64))
    found = trace([at])
    root = np.linalg.cholesky(hessian)
    for level in (8, 16, 32, 48, 63):
        kept = np.setdiff1d(np.arange(64), found.order[:level])
        best = np.linalg.lstsq(root[kept].T, (w @ root).T, rcond=None)[0].T
        error = ((w @ root - best @ root[kept]) ** 2).sum()
        assert abs(found.errors[level] - error) <= 1e-6 * max(error, 1e-3 * at.energy)


@pytest.mark.parametrize("samples", [1, 3])
def test_fewer_samples_than_inputs(samples: int) -> None:
    w, x = drawn(9, 8)
    found = trace([consumer(w, moment(x[:, :samples]), singles(8))])
    assert np.isfinite(found.errors).all() and (np.diff(found.errors) >= 0).all()
    assert sorted(found.order) == list(range(8))


def test_inputs_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        consumer(np.ones((2, 3)), np.full((3, 3), np.nan), singles(3))

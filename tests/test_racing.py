"""Races between candidates: bounds that hold, and samples that need not be read."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import binom

from secateur.job.racing import LEAST, RISK, Race, interval, looks


def stopped(losses: np.ndarray, reference: np.ndarray, margin: float = 0.0) -> int:
    """After how many samples a candidate leaves; 0 where it does not."""
    race = Race(reference, "", margin)
    return next((n for n in looks(len(reference)) if race.lost(losses[:n]) is not None), 0)


def test_looks_double_and_the_whole_is_none_of_them():
    assert looks(1024) == (128, 256, 512) and looks(300) == (38, 76)
    assert looks(2 * LEAST) == (LEAST,) and looks(2 * LEAST - 1) == ()
    for samples in range(1, 400):
        assert all(a * 2 == b for a, b in zip(looks(samples), looks(samples)[1:], strict=False))
        assert all(LEAST <= n <= samples / 2 for n in looks(samples))


@pytest.mark.parametrize("n", [6, 7])
def test_right_and_wrong_answers_are_bounded_by_the_binomial_test(n):
    """By brute force over all answers: the bound is above 0 iff a one-sided sign test says so."""
    for found in product((-1.0, 0.0, 1.0), repeat=n):
        worse, better = found.count(1.0), found.count(-1.0)
        said = interval(np.array(found), 0.05)
        tail = float(binom.sf(worse - 1, worse + better, 0.5)) if worse else 1.0
        assert (said.low > 0) == (tail < 0.05)
        assert said.low <= said.mean <= said.high and said.samples == n


def test_losses_are_bounded_by_students_t():
    found = interval(np.array([0.1, 0.3, 0.2, 0.6]), 0.025)
    half = 3.182446305284263 * math.sqrt(0.14 / 3) / 2  # of a table of t, for 3 degrees of freedom
    assert found.low == pytest.approx(0.3 - half) and found.high == pytest.approx(0.3 + half)


@pytest.mark.parametrize("kind", ["answers", "losses"])
def test_candidates_that_are_no_worse_seldom_leave(kind):
    """1000 candidates as good as the best: at all looks together no more than the risk leave."""
    drawn = np.random.default_rng(0)
    samples = 512
    both = drawn.random((1000, samples)) < 0.8  # what makes pairs alike
    sides = []
    for _ in range(2):
        if kind == "answers":
            sides.append((drawn.random((1000, samples)) < np.where(both, 0.05, 0.5)).astype(float))
        else:
            sides.append(drawn.exponential(np.where(both, 0.1, 1.0)))
    left = np.mean([stopped(a, b) > 0 for a, b in zip(*sides, strict=True)])
    deviation = math.sqrt(RISK * (1 - RISK) / 1000)
    assert 0 < left <= RISK + 3 * deviation


def test_candidates_that_are_far_behind_leave_after_few_samples():
    drawn = np.random.default_rng(1)
    best = (drawn.random((200, 1024)) < 0.1).astype(float)
    worse = (drawn.random((200, 1024)) < 0.3).astype(float)
    counts = [stopped(a, b) for a, b in zip(worse, best, strict=True)]
    assert all(counts) and np.mean(counts) < 0.2 * 1024
    assert not any(stopped(a, b) for a, b in zip(best, worse, strict=True))


def test_a_margin_may_be_lost_and_pairs_say_more_than_means():
    drawn = np.random.default_rng(2)
    noise = drawn.exponential(size=512)
    assert stopped(noise + 0.1 + 0.01 * drawn.random(512), noise) == looks(512)[0]
    assert stopped(noise + 0.1 + 0.01 * drawn.random(512), noise, margin=0.2) == 0
    assert stopped(drawn.permutation(noise) + 0.1, noise) == 0  # the same means, without the pairs
    race = Race(noise, "")
    first = noise[:64] + 0.1
    assert race.estimate(first) == pytest.approx(noise.mean() + 0.1)  # and not first.mean()
    assert abs(first.mean() - noise.mean() - 0.1) > 0.01

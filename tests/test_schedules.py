"""Schedules: exact at the end, never falling, and each its own formula."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from secateur.errors import InputError
from secateur.schedules import SCHEDULES, share_at

ENDS = (0.0, 0.3, 0.8, 0.99)


@pytest.mark.parametrize("name", SCHEDULES.names())
@pytest.mark.parametrize("end", ENDS)
def test_a_schedule_never_falls_and_ends_exactly(name, end):
    shares = [share_at(name, step / 50, end) for step in range(51)]
    assert all(0 <= a <= b <= end for a, b in pairwise(shares))
    assert shares[-1] == end and share_at(name, 7.0, end) == end
    assert share_at(name, -1.0, end) == shares[0]
    assert abs(SCHEDULES.get(name)(1.0, end) - end) < 1e-12  # also where nobody rounds it
    assert shares[0] == (end if name == "one-shot" else 0)


def test_each_is_its_formula():
    for p, end in ((0.25, 0.8), (0.5, 0.9), (0.75, 0.5)):
        assert share_at("linear", p, end) == pytest.approx(end * p)
        # Zhu and Gupta: s_f + (s_i - s_f) (1 - p)^3 with s_i = 0
        assert share_at("cubic", p, end) == pytest.approx(end + (0 - end) * (1 - p) ** 3)
        left = (1 - share_at("exponential", p, end) / end, math.exp(-5))
        assert left[0] == pytest.approx((math.exp(-5 * p) - left[1]) / (1 - left[1]))


def test_every_round_of_the_iterative_one_removes_the_same_share_of_what_is_left():
    rounds, end = 8, 0.9
    kept = [1 - share_at("iterative", t / rounds, end) for t in range(rounds + 1)]
    for before, after in pairwise(kept):
        assert after / before == pytest.approx(0.1 ** (1 / rounds))
    assert kept[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("end", [-0.1, 1.0, 2, True, math.nan])
def test_a_share_out_of_range_is_refused(end):
    with pytest.raises(InputError, match="share to remove is"):
        share_at("cubic", 0.5, end)
    with pytest.raises(InputError, match="did you mean 'cubic'"):
        share_at("cubik", 0.5, 0.5)

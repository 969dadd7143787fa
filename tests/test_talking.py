"""What commands say of the time that is left."""

from __future__ import annotations

import pytest

from secateur.cli._talking import Pace


def test_steps_of_one_length_leave_their_number_of_lengths() -> None:
    pace = Pace(100.0)
    assert [pace.left(100.0 + 2 * n, n, 10) for n in (1, 2, 3)] == [18.0, 16.0, 14.0]


def test_what_was_done_before_says_nothing() -> None:
    pace = Pace(0.0)
    assert pace.left(0.1, 90, 100) is None  # 90 came at once: they were done before
    assert pace.left(6.1, 91, 100) == pytest.approx(54.0)


def test_known_steps_that_come_one_by_one_are_soon_outweighed() -> None:
    pace = Pace(0.0)
    for number in range(1, 41):
        pace.left(0.001 * number, number, 100)
    now = 0.04
    for number in range(41, 47):
        now += 5.0
        left = pace.left(now, number, 100)
    assert left == pytest.approx(54 * 5.0)


def test_several_at_once_share_the_time() -> None:
    pace = Pace(0.0)
    pace.left(1.0, 1, 9)
    assert pace.left(5.0, 5, 9) == pytest.approx(4.0)

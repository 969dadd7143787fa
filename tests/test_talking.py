"""What commands say of the time that is left."""

from __future__ import annotations

import pytest

from secateur.cli import _talking
from secateur.cli._talking import Pace, Talk


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


def logged(monkeypatch, capsys, seconds: float, total: int | None) -> list[str]:
    """The lines of a log without a terminal, of 777 steps that take so long each."""
    now = [0.0]
    monkeypatch.setattr(_talking.time, "perf_counter", lambda: now[0])
    talk = Talk(quiet=False)
    talk.begin("probing", total)
    for step in range(1, 778):
        now[0] += seconds
        talk.tick("probing", step, f"{step} done")
    return capsys.readouterr().err.splitlines()


def test_a_log_gets_each_tenth_of_many_quick_steps(monkeypatch, capsys) -> None:
    lines = logged(monkeypatch, capsys, 0.001, 777)
    assert len(lines) == 11
    assert lines[0].startswith("probing 1/777: 1 done") and lines[-1] == "probing 777/777: 777 done"


def test_a_log_gets_a_line_of_slow_steps_every_ten_seconds(monkeypatch, capsys) -> None:
    lines = logged(monkeypatch, capsys, 2.0, 777)
    assert 777 * 2 / 10 - 1 <= len(lines) <= 777 * 2 / 10 + 11


def test_steps_without_a_total_are_all_told(monkeypatch, capsys) -> None:
    assert len(logged(monkeypatch, capsys, 0.001, None)) == 777

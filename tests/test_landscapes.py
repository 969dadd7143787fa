"""Landscapes whose best point is known, and recorded tables: found again by counting all points."""

from __future__ import annotations

import json
from itertools import product

import pytest

from secateur.errors import InputError
from secateur.searching import ALGORITHMS
from secateur.searching._landscapes import LANDSCAPES, LIMIT, landscape
from secateur.searching._recorded import SCHEMA, read_recorded
from secateur.searching._running import run_search


@pytest.mark.parametrize("name", LANDSCAPES)
def test_a_landscape_holds_all_points_that_use_the_limit_up(name):
    """By trying every choice one by one, and every choice that is one level wider."""
    found = landscape(name, seed=3, groups=4, levels=4)
    assert found.cost is not None
    expected = set()
    for point in product(range(4), repeat=4):
        if found.cost(point) > 1 + 1e-9:
            continue
        wider = [(*point[:n], point[n] - 1, *point[n + 1 :]) for n in range(4) if point[n] > 0]
        if all(found.cost(other) > 1 + 1e-9 for other in wider):
            expected.add(point)
    assert {tuple(point) for point in found.points.tolist()} == expected
    assert abs(found.cost((0,) * 4) - 1 / LIMIT) < 1e-9  # nothing leaves
    assert found.best == min(found.value(point) for point in expected)
    problem = found.problem(seeded=True)
    for point in product(range(4), repeat=4):
        nearest = min(sum((a - b) ** 2 for a, b in zip(point, p, strict=True)) for p in expected)
        repaired = problem.repair(point)
        assert repaired is not None and repaired in expected
        assert sum((a - b) ** 2 for a, b in zip(point, repaired, strict=True)) == nearest
    with pytest.raises(InputError, match="not a point"):
        found.value((0,) * 4)


def test_what_tables_say_of_landscapes():
    """The table's own answer is the best one where it is right, and a poor one where it is not."""

    def told(name, seed):
        found = landscape(name, seed)
        answer, even = found.problem(seeded=True).seeds
        assert found.cost is not None
        level = min(n for n in range(6) if found.cost((n,) * 8) <= 1)
        assert all(at <= level for at in even)
        return found.value(answer) / found.best

    for seed in range(3):
        assert abs(told("additive", seed) - 1) < 1e-12
        assert told("crossed", seed) > 1.02
        assert told("deceptive", seed) > 1.3
    with pytest.raises(InputError, match="did you mean 'crossed'"):
        landscape("crosed")


TABLE = {
    "schema": SCHEMA,
    "about": "two groups",
    "parameters": {"a": [4, 3, 2], "b": [8, 6, 4]},
    "table": {"a": [0.0, 1.0, 3.0], "b": [0.0, 1.0, 2.0]},
}
ROWS = [[[0, 2], 0.5, 0.9], [[1, 1], 0.4, 0.8], [[2, 0], 0.7, 0.7]]


def _written(place, header=TABLE, rows=ROWS):
    path = place / "table.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [header, *rows]))
    return path


def test_a_recorded_table_is_searched(tmp_path):
    found = read_recorded(_written(tmp_path))
    assert found.name == "two groups" and found.best == 0.4
    problem = found.problem(seeded=True)
    assert problem.seeds == ((0, 2), (1, 1))  # both 2 in the table; no group below level 1
    done = run_search(problem, ALGORITHMS.get("random")(problem, 0, 9), found.value, trials=9)
    assert {(t.point, t.value) for t in done.trials} == {(tuple(r[0]), r[1]) for r in ROWS}


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        ({**TABLE, "schema": "other"}, ROWS, "no recorded table"),
        ([1], ROWS, "no recorded table"),
        ({**TABLE, "table": {"a": [0.0]}}, ROWS, "same groups"),
        ({**TABLE, "table": {"a": [0.0, 1.0], "b": [0.0, 1.0, 2.0]}}, ROWS, "each width of a"),
        (TABLE, [], "no evaluation"),
        (TABLE, [[[0, 3], 0.5]], "line 2"),
        (TABLE, [ROWS[0], [[0], 0.5]], "line 3"),
        (TABLE, [[[0, 1], float("nan")]], "line 2"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(tmp_path, header, rows, said):
    with pytest.raises(InputError, match=said):
        read_recorded(_written(tmp_path, header, rows))


def test_a_table_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text('{"schema": \n')
    with pytest.raises(InputError, match="not JSON"):
        read_recorded(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not text"):
        read_recorded(path)

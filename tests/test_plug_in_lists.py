"""``secateur policies`` and its like: every plug-in with one line."""

from __future__ import annotations

import json

import pytest

from command_cases import secateur
from secateur.granularities import GRANULARITIES
from secateur.policies import POLICIES

LISTS = {"policies": POLICIES, "granularities": GRANULARITIES}


@pytest.mark.parametrize("command", LISTS)
def test_every_plug_in_has_a_line(command, tmp_path):
    done = secateur(tmp_path, command, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)[command]
    assert [row["name"] for row in rows] == list(LISTS[command].names())
    assert all(5 < len(row["about"]) <= 100 and row["about"].endswith(".") for row in rows)
    lines = secateur(tmp_path, command).stdout.splitlines()
    for row, line in zip(rows, lines, strict=True):
        assert line.startswith(row["name"]) and line.endswith(row["about"])

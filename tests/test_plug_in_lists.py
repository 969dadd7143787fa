"""``secateur policies`` and its like: every plug-in with one line."""

from __future__ import annotations

import json

import pytest

from command_cases import secateur
from secateur.criteria import CRITERIA
from secateur.granularities import GRANULARITIES
from secateur.policies import POLICIES

LISTS = {"criteria": CRITERIA, "policies": POLICIES, "granularities": GRANULARITIES}


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


def test_criteria_say_what_they_need(tmp_path):
    rows = json.loads(secateur(tmp_path, "criteria", "--json").stdout)["criteria"]
    found = {row["name"]: row for row in rows}
    assert found["l2"] == {
        "name": "l2", "about": found["l2"]["about"], "data": "nothing", "needs": [],
        "elements": True, "reduction": "sum", "normalise": None,
    }  # fmt: skip
    data = {name: found[name]["data"] for name in ("fisher", "wanda", "synflow", "movement", "obs")}
    assert data == {
        "fisher": "labels", "wanda": "inputs", "synflow": "nothing", "movement": "a training",
        "obs": "inputs",
    }  # fmt: skip
    assert found["grasp"]["normalise"] == "none" and not found["fpgm"]["elements"]

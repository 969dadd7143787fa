"""``secateur regularisers`` and ``secateur schedules``: one line for each plug-in."""

from __future__ import annotations

import json

import pytest

from command_cases import secateur
from secateur.during import DURING
from secateur.regularisers import REGULARISERS
from secateur.schedules import SCHEDULES

LISTS = {"regularisers": {"regularisers": REGULARISERS},
         "schedules": {"schedules": SCHEDULES, "during": DURING}}  # fmt: skip


@pytest.mark.parametrize("command", LISTS)
def test_every_plug_in_has_a_line(tmp_path, command):
    plain = secateur(tmp_path, command)
    assert plain.returncode == 0, plain.stderr
    told = json.loads(secateur(tmp_path, command, "--json").stdout)
    for key, registry in LISTS[command].items():
        assert [row["name"] for row in told[key]] == list(registry.names())
        for row in told[key]:
            assert len(row["about"]) > 20  # a sentence
            assert any(
                line.startswith(row["name"]) and line.endswith(row["about"])
                for line in plain.stdout.splitlines()
            )

"""docs/methods.md names every method there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from secateur.criteria import CRITERIA
from secateur.during import DURING
from secateur.granularities import GRANULARITIES
from secateur.policies import POLICIES
from secateur.regularisers import REGULARISERS
from secateur.schedules import SCHEDULES

PAGE = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "registry", [CRITERIA, DURING, GRANULARITIES, POLICIES, REGULARISERS, SCHEDULES],
    ids=lambda registry: registry.kind,
)  # fmt: skip
def test_every_method_is_on_the_page(registry):
    named = set(re.findall(r"`([a-z0-9-]+)`", PAGE))
    assert set(registry.names()) <= named

"""The plan as a value: which units leave which group, why, and what that should cost.

A plan is a small JSON document. It is read, diffed, combined and re-applied without a model;
only ``check``, ``compose`` and ``describe`` look at a structure. Nothing here imports torch.

text.py     unit ranges, shapes, the JSON document, and what is refused in them
value.py    PruningPlan, its algebra, digest, diff
fitting.py  check, describe, compose
"""

from __future__ import annotations

from secateur.planning.fitting import StructureLike, check, compose, describe
from secateur.planning.text import SCHEMA, Units, format_units, parse_units
from secateur.planning.value import PruningPlan, diff, digest

__all__ = [
    "SCHEMA",
    "PruningPlan",
    "StructureLike",
    "Units",
    "check",
    "compose",
    "describe",
    "diff",
    "digest",
    "format_units",
    "parse_units",
]

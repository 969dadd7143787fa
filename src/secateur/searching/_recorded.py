"""A table of evaluations that were made before, as a landscape to search."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from secateur.errors import InputError
from secateur.searching._landscapes import Landscape

SCHEMA = "secateur.search-table/1"


def read_recorded(path: Path) -> Landscape:
    """The landscape of a file of lines of JSON.

    The first line is an object: ``schema``, ``about``, ``parameters`` (group -> widths, level by
    level) and ``table`` (group -> losses to expect, level by level); each other one a list that
    begins with levels and the value that was measured with them. Errors: InputError, and OSError.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        about = json.loads(lines[0]) if lines else None
        rows = [json.loads(line) for line in lines[1:]]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text; a recorded table is lines of JSON") from error
    except ValueError as error:
        raise InputError(f"{path}: a line is not JSON ({error}); make the table anew") from error
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        raise InputError(
            f"{path} is no recorded table: its first line should say schema {SCHEMA!r}; "
            "'python -m benchmarks search_table' makes one"
        )
    table = _table(path, about)
    points, values = [], []
    for number, row in enumerate(rows, 2):
        if not _fits(row, table):
            raise InputError(
                f"{path}, line {number}: expected [levels of {len(table)} groups, value, ...]; "
                "take the line out, or make the table anew"
            )
        points.append(row[0])
        values.append(float(row[1]))
    if not points:
        raise InputError(f"{path} holds no evaluation; make the table anew")
    name = str(about.get("about") or path.stem)
    return Landscape(name, np.array(points, np.int64), np.array(values), table)


def _table(path: Path, about: dict[str, Any]) -> dict[str, list[float]]:
    table, widths = about.get("table"), about.get("parameters")
    if (
        not isinstance(table, dict)
        or not isinstance(widths, dict)
        or not table
        or list(table) != list(widths)
    ):
        raise InputError(f"{path}: 'parameters' and 'table' should name the same groups, in order")
    for name, losses in table.items():
        if (
            not isinstance(losses, list)
            or not isinstance(widths[name], list)
            or len(losses) != len(widths[name])
            or not all(isinstance(x, int | float) and math.isfinite(x) for x in losses)
        ):
            raise InputError(f"{path}: 'table' should have a finite loss for each width of {name}")
    return table


def _fits(row: Any, table: dict[str, list[float]]) -> bool:
    return (
        isinstance(row, list)
        and len(row) >= 2
        and isinstance(row[0], list)
        and len(row[0]) == len(table)
        and isinstance(row[1], int | float)
        and math.isfinite(row[1])
        and all(
            isinstance(level, int) and 0 <= level < len(losses)
            for level, losses in zip(row[0], table.values(), strict=True)
        )
    )

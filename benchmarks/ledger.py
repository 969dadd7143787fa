"""Finished cells as lines of JSON: a benchmark that was stopped goes on where it stood."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"

Row = dict[str, Any]


class Ledger:
    """The finished cells of one benchmark, one JSON object a line.

    A cell is named by a mapping of plain values, among them every setting that changes its
    result, so that changed settings are measured anew and never mixed with old lines.
    """

    def __init__(self, name: str, folder: Path = RESULTS) -> None:
        self.path = folder / f"{name}.jsonl"

    def rows(self) -> list[Row]:
        """All finished cells in the order in which they finished.

        A last line without its end (a kill or a full disk) is left out, and measured again.
        """
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def find(self, cell: Mapping[str, Any]) -> Row | None:
        """The finished line of a cell; the last one if there are several."""
        found = [row for row in self.rows() if row["cell"] == dict(cell)]
        return found[-1] if found else None

    def measure(self, cell: Mapping[str, Any], function: Callable[[], Mapping[str, Any]]) -> Row:
        """The line of a cell: read where it is finished, else measured and written."""
        found = self.find(cell)
        if found is not None:
            return found
        start = time.perf_counter()
        result = function()
        return self.write(cell, result, time.perf_counter() - start)

    def write(self, cell: Mapping[str, Any], result: Mapping[str, Any], seconds: float) -> Row:
        """Put a finished cell down; of several lines of a cell the last counts."""
        row = {
            "cell": dict(cell),
            "result": dict(result),
            "seconds": round(seconds, 1),
            "environment": environment(),
        }
        self._append(row)
        return row

    def _append(self, row: Row) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        raw = self.path.read_bytes() if self.path.is_file() else b""
        if raw and not raw.endswith(b"\n"):  # cut off while it was written
            self.path.write_bytes(raw[: raw.rfind(b"\n") + 1])
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def environment() -> Row:
    """What the numbers were measured on."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": _processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

"""What is known of a search's trials, in files that its workers share.

told.jsonl          a row for each trial that the algorithm was told of, in that order
points/NAME.json    of a point that was asked for: how many trials were told before
points/NAME.done.json          what was measured of it, by whoever did
points/NAME.done.safetensors   losses of single samples

A trial learns from those trials alone that were told when its point was asked for, and not from
all that happen to be done: so it is the same, whoever makes it, and when.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from secateur.errors import InputError
from secateur.job import folders
from secateur.journal import drop_partial_line
from secateur.searching import Question
from secateur.searching._evaluation import Engine
from secateur.searching._space import asked
from secateur.surgery.storing import read_tensors, write_tensors

POINTS = "points"


def name_of(question: Question) -> str:
    """Of the files of a point, or of a cheap evaluation of one."""
    point, share = asked(question)
    text = json.dumps([str(value) for value in point] + ([] if share == 1 else [{"share": share}]))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Asking:
    """An engine whose questions are noted, with what was told before."""

    def __init__(self, engine: Engine, standings: Standings) -> None:
        self._engine, self._standings = engine, standings
        self.answer = engine.answer

    def begin(self, point: Question) -> None:
        """Note it, then let it wait."""
        self._standings.ask(point)
        self._engine.begin(point)


class Standings:
    """The trials of a search, in a folder that may be there already; told: name of the rows'
    file."""

    def __init__(self, folder: Path, told: str) -> None:
        self._path, self._points = folder / told, folder / POINTS
        self._points.mkdir(parents=True, exist_ok=True)

    def open(self) -> list[dict[str, Any]]:
        """For the process that searches, before all else: the rows of an earlier one, of which a
        last one that has no end is dropped."""
        drop_partial_line(self._path)
        self._told = self._rows()
        return list(self._told)

    def ask(self, point: Question) -> None:
        """A point will be evaluated; it may learn from what was told so far."""
        folders.write_json(self._file(point, ".json"), {"after": len(self._told)})

    def tell(self, row: dict[str, Any]) -> None:
        """A trial is done, and the algorithm knows."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self._told.append(row)

    def before(self, point: Question) -> list[dict[str, Any]]:
        """The rows that a trial of the point may learn from. Errors: InputError where nobody asked
        for it."""
        after = int(folders.read_json(self._file(point, ".json"))["after"])
        rows = self._rows()
        if len(rows) < after:
            raise InputError(
                f"{self._path} has {len(rows)} trials, and {after} were told; bring the whole file"
            )
        return rows[:after]

    def write(
        self, point: Question, found: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> None:
        """What was measured of a point; of two processes that do the last one stays."""
        if tensors:
            write_tensors(self._file(point, ".done.safetensors"), dict(tensors))
        folders.write_json(self._file(point, ".done.json"), found)

    def read(self, point: Question) -> dict[str, Any] | None:
        """What was measured of a point; None where its evaluation failed."""
        path = self._file(point, ".done.json")
        return folders.read_json(path) if path.is_file() else None

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Losses of single samples of the point with a name; empty where there are none."""
        path = self._points / f"{name}.done.safetensors"
        return read_tensors(path) if path.is_file() else {}

    def names(self) -> set[str]:
        """Of the trials that were told."""
        return {row["name"] for row in self._told}

    def _file(self, point: Question, end: str) -> Path:
        return self._points / f"{name_of(point)}{end}"

    def _rows(self) -> list[dict[str, Any]]:
        if not self._path.is_file():
            return []
        text = self._path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

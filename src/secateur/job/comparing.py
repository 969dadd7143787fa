"""Searches side by side: on landscapes, on a recorded table, or live on a recipe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from secateur.config import Recipe
from secateur.errors import InputError
from secateur.job import folders, story
from secateur.job.listening import Listener, Silent
from secateur.journal import NAME as JOURNAL
from secateur.reports.comparison import comparison_page
from secateur.searching import ALGORITHMS
from secateur.searching._comparing import SCHEMA, Cell, Line, search_landscape, summarised
from secateur.searching._landscapes import LANDSCAPES, Landscape, landscape
from secateur.searching._recorded import read_recorded

LEDGER, DOCUMENT, PAGE = "comparison.jsonl", "comparison.json", "comparison.html"


class Lines:
    """The finished cells of a comparison, a line of JSON each; a last one cut short is left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[Cell, Line] = {}
        if path.is_file():
            whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
            for line in whole.splitlines():
                row = json.loads(line)
                cell = Cell(**row["cell"])
                self._found[cell] = Line(cell, tuple(row["values"]))
            path.write_text(f"{whole}\n" if whole else "", encoding="utf-8")

    def line(self, cell: Cell, search: Callable[[], Line]) -> Line:
        """Read where it is finished, else searched and written."""
        if cell not in self._found:
            self._found[cell] = search()
            row = {"cell": asdict(cell), "values": list(self._found[cell].values)}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        return self._found[cell]


def cells(
    subject: str,
    digest: str,
    algorithms: Sequence[str],
    begun: Sequence[bool],
    seeds: int,
    trials: int,
) -> Iterator[Cell]:
    """All of a subject; begun: with seeds, without, or both."""
    for seed in range(seeds):
        for name in algorithms:
            yield from (Cell(subject, digest, name, seeded, seed, trials) for seeded in begun)


def compare_landscapes(
    landscapes: Sequence[Landscape],
    algorithms: Sequence[str],
    begun: Sequence[bool],
    *,
    trials: int,
    seeds: int,
    output: Path,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Every algorithm on every landscape, with equal evaluations; the document of the comparison.

    What is finished is read from ``output``; the document and its page are written there.
    Errors: InputError for an unknown algorithm or one whose library is missing.
    """
    listener = listener or Silent()
    ledger = _begun(algorithms, output)
    subjects = []
    for place in landscapes:
        wanted = list(cells(place.name, _digest(place), algorithms, begun, seeds, trials))
        listener.begin(place.name, len(wanted))
        lines = []
        for number, cell in enumerate(wanted, 1):
            lines.append(ledger.line(cell, lambda c=cell, p=place: search_landscape(p, c)))
            least = min(lines[-1].values)
            listener.tick(place.name, number, f"{cell.algorithm}, seed {cell.seed}: {least:.4g}")
        about = {"name": place.name, "best": place.best, "uniform": place.value(place.uniform())}
        subjects.append(summarised(lines, about, trials))
        listener.end(place.name, f"{len(wanted)} searches, the best known value {place.best:.4g}")
    return _written(subjects, output)


def compare_live(
    recipe: Recipe,
    algorithms: Sequence[str],
    begun: Sequence[bool],
    *,
    trials: int,
    seeds: int,
    output: Path,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Every algorithm on the widths of a recipe; a seed draws the calibration samples as well.

    Each search is a run of its own in ``output/runs`` that ends with its pruned and compensated
    model: nothing is trained, timed or exported. Errors: InputError and BudgetError, as runs.
    """
    listener = listener or Silent()
    ledger = _begun(algorithms, output)
    text = json.dumps(recipe.model_dump(mode="json", exclude={"output", "seed", "search"}))
    digest, subject = hashlib.sha256(text.encode()).hexdigest()[:8], recipe.model
    wanted = list(cells(subject, digest, algorithms, begun, seeds, trials))
    stage = f"compare {len(algorithms)} algorithms"
    listener.begin(stage, len(wanted))
    lines = []
    for number, cell in enumerate(wanted, 1):
        lines.append(ledger.line(cell, lambda c=cell: search_live(recipe, c, output)))
        least = min(lines[-1].values)
        listener.tick(stage, number, f"{cell.algorithm}, seed {cell.seed}: loss {least:.4g}")
    listener.end(stage, f"{len(wanted)} searches")
    return _written([summarised(lines, {"name": subject}, trials)], output)


def search_live(recipe: Recipe, cell: Cell, output: Path) -> Line:
    """The line of a search of the widths of a recipe; one that was stopped goes on.

    Errors: InputError where the recipe makes no trials; BudgetError, as runs.
    """
    begun = "seeded" if cell.seeded else "unseeded"
    name = f"{cell.algorithm}-{begun}-{cell.trials}-{cell.seed}-{cell.digest}"
    folder = output / "runs" / name
    if (folder / JOURNAL).exists():
        metrics = story.resume(folder)
    else:
        metrics = story.run(_searching(recipe, cell, folder), command="secateur compare-search")
    choice = metrics.get("choice") or {}
    if not choice.get("trials"):
        raise InputError(
            "the recipe makes no trials: its search needs calibration data, and "
            "pruning.compensate: true"
        )
    return Line(cell, tuple(trial["loss"] for trial in choice["trials"]))


def _searching(recipe: Recipe, cell: Cell, folder: Path) -> Recipe:
    section: Mapping[str, Any] = {
        "algorithm": cell.algorithm, "trials": cell.trials, "seeded": cell.seeded,
        "minutes": 60.0 * 24 * 7,  # trials end it, so that all algorithms get as many
    }  # fmt: skip
    found = recipe.search
    assert found is not None
    changes = {
        "search": found.model_copy(update=dict(section)), "seed": cell.seed, "output": str(folder),
        "export": [], "finetune": None,
    }  # fmt: skip
    return recipe.model_copy(update=changes)


def named(names: Sequence[str], seed: int = 0) -> list[Landscape]:
    """Landscapes by name (``landscapes``: all), or files of recorded tables. Errors: InputError."""
    found: list[Landscape] = []
    for name in names:
        if name == "landscapes":
            found += [landscape(each, seed) for each in LANDSCAPES]
        elif name in LANDSCAPES:
            found.append(landscape(name, seed))
        else:
            found.append(read_recorded(Path(name)))
    return found


def _begun(algorithms: Sequence[str], output: Path) -> Lines:
    for name in algorithms:
        ALGORITHMS.get(name)
    output.mkdir(parents=True, exist_ok=True)
    return Lines(output / LEDGER)


def _digest(place: Landscape) -> str:
    parts = (place.points.tobytes(), place.values.tobytes(), json.dumps(dict(place.table)).encode())
    return hashlib.sha256(b"".join(parts)).hexdigest()[:8]


def _written(subjects: Sequence[Mapping[str, Any]], output: Path) -> dict[str, Any]:
    document = {"schema": SCHEMA, "subjects": [dict(subject) for subject in subjects]}
    folders.write_json(output / DOCUMENT, document)
    (output / PAGE).write_text(comparison_page(document), encoding="utf-8")
    return document

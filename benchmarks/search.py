"""Search algorithms side by side, at equal evaluations, where every answer is known.

Three landscapes with a known optimum (eight groups of six levels under one limit, about 30,000
points that use it up), and a recorded table of 2,390 compensated evaluations of a small VGG on
Fashion-MNIST (`python -m benchmarks search_table`). In `additive` the table of losses that a search
is told is exact, in `crossed` groups also lose together, and in `deceptive` its losses stand at the
wrong groups. An algorithm begins from nowhere, or with two seeds: the answer of the table, and the
same share everywhere. Searches that plan by the number of evaluations are run for each number anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from itertools import product
from pathlib import Path

import secateur.searching
from benchmarks.ledger import Ledger, Row
from benchmarks.search_table import PATH
from secateur.searching import ALGORITHMS
from secateur.searching._comparing import Cell, search_landscape
from secateur.searching._landscapes import LANDSCAPES, Landscape, landscape
from secateur.searching._recorded import read_recorded

COUNTS = (10, 20, 50, 100, 200)  # evaluations
QUICK_COUNTS = COUNTS[:-1]
# What else an algorithm's file stands on; results are of that code alone.
SHARED = {
    "auto": ("_surrogate",), "tpe": ("_optuna",), "bisection": ("_sequential",),
    "halving": ("_sequential",),
    "greedy": ("_sequential",), "netadapt": ("_sequential",),
    **dict.fromkeys(("differential", "genetic", "nsga2", "swarm"), ("_pymoo",)),
}  # fmt: skip
# They do the same first steps whatever the number of evaluations: one search tells of all.
UNPLANNED = ("auto", "bisection", "greedy", "random", "reinforce", "tpe")


def subjects() -> list[Landscape]:
    """What is searched; without the recorded table where it was not made."""
    found = [landscape(name) for name in LANDSCAPES]
    return [*found, read_recorded(PATH)] if PATH.is_file() else found


def digest(place: Landscape) -> str:
    """Of all points and values."""
    return sha256(place.points.tobytes() + place.values.tobytes()).hexdigest()[:8]


def code(name: str) -> str:
    """Of the files of an algorithm."""
    folder = Path(secateur.searching.__file__).parent
    files = [folder / f"{stem}.py" for stem in (name, *SHARED.get(name, ()))]
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]


def cells(place: Landscape, seed: int, counts: tuple[int, ...]) -> Iterator[tuple[Cell, Row]]:
    """All searches of a subject and a seed, with the mapping that names each in the ledger."""
    known, written = digest(place), {name: code(name) for name in ALGORITHMS.names()}
    for trials, name, seeded in product(counts, ALGORITHMS.names(), (True, False)):
        if trials < max(counts) and name in UNPLANNED:
            continue
        cell = Cell(place.name, known, name, seeded, seed, trials)
        row = {"subject": place.name, "digest": known, "algorithm": name, "code": written[name],
               "seeded": seeded, "seed": seed, "trials": trials}  # fmt: skip
        yield cell, row


def run(seeds: int, quick: bool) -> None:
    """Make the searches that are missing. quick: none of the largest number of evaluations."""
    ledger = Ledger("search")
    done = {tuple(row["cell"].values()) for row in ledger.rows()}
    counts = QUICK_COUNTS if quick else COUNTS
    for seed, place in product(range(seeds), subjects()):
        for cell, row in cells(place, seed, counts):
            if tuple(row.values()) not in done:
                line = search_landscape(place, cell)
                ledger.write(row, {"better": improvements(line.values)}, 0.0)
        print(f"search {place.name}: seed {seed}", flush=True)


def improvements(values: tuple[float, ...]) -> list[list[float]]:
    """[evaluation, value] wherever a value is less than all before; the last evaluation as well."""
    found: list[list[float]] = []
    for number, value in enumerate(values, 1):
        if not found or value < found[-1][1]:
            found.append([number, float(f"{value:.6g}")])
    return found

"""docs/results/search.md and its pictures, from the ledger's lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import search as bench
from benchmarks.ledger import Row
from benchmarks.search import COUNTS, UNPLANNED
from benchmarks.summary import table
from secateur.reports.comparison import curves
from secateur.searching import ALGORITHMS
from secateur.searching._landscapes import Landscape

PICTURES = Path(__file__).parents[1] / "docs" / "images" / "search"
# (algorithm, seeded, evaluations) -> the best value after each evaluation, a row for each draw
Found = dict[tuple[str, bool, int], np.ndarray]


def page(rows: Sequence[Row]) -> str:
    """The page of all subjects that were searched; writes a picture of each beside it."""
    places = bench.subjects()
    found = {place.name: _found(place, rows) for place in places}
    where = rows[-1]["environment"]
    parts = [
        "# Search algorithms side by side\n",
        *(bench.__doc__ or "").strip().splitlines()[2:],
        "",
        f"Made on {where['cpu']}, torch {where['torch']}. Reproduce: `python -m benchmarks search "
        "--seeds 5`; `secateur compare-search landscapes` does the same by hand. Values are means "
        "over the draws of the least value so far; less is better.\n",
        "## The default beside all others\n",
        "`auto` as a user gets it (with seeds), beside the best of the others without seeds: the "
        "best as these values show it, a choice that nobody could make beforehand.\n",
        _headline(places, found),
    ]
    for place in places:
        if found[place.name]:
            parts += ["", _subject(place, found[place.name])]
    return "\n".join(parts) + "\n"


def _found(place: Landscape, rows: Sequence[Row]) -> Found:
    """Searches of the code as it is, of seeds that are finished; those that plan nothing tell of
    smaller numbers as well."""
    codes = {name: bench.code(name) for name in ALGORITHMS.names()}
    digest = bench.digest(place)
    current = [
        row for row in rows
        if row["cell"]["digest"] == digest
        and row["cell"]["code"] == codes.get(row["cell"]["algorithm"])
    ]  # fmt: skip
    current = _longest(current)
    counts = Counter(row["cell"]["seed"] for row in current)
    grouped: dict[tuple[str, bool, int], list[np.ndarray]] = {}
    for row in current:
        cell = row["cell"]
        name, trials = cell["algorithm"], cell["trials"]
        if counts[cell["seed"]] < max(counts.values()):
            continue
        best = np.full(trials, np.inf)
        for number, value in row["result"]["better"]:
            best[int(number) - 1 :] = value
        for count in COUNTS if name in UNPLANNED else (trials,):
            if count <= trials:
                grouped.setdefault((name, cell["seeded"], count), []).append(best[:count])
    return {key: np.array(curves) for key, curves in grouped.items()}


def _longest(rows: Sequence[Row]) -> list[Row]:
    """Of searches that plan nothing the longest of each seed alone: it tells of the others."""
    longest: dict[tuple[str, bool, int], int] = {}
    for row in rows:
        cell = row["cell"]
        key = cell["algorithm"], cell["seeded"], cell["seed"]
        longest[key] = max(longest.get(key, 0), cell["trials"])
    return [
        row for row in rows
        if (cell := row["cell"])["algorithm"] not in UNPLANNED
        or cell["trials"] == longest[cell["algorithm"], cell["seeded"], cell["seed"]]
    ]  # fmt: skip


def _mean(found: Found, name: str, seeded: bool, count: int) -> float:
    draws = found.get((name, seeded, count))
    return float("nan") if draws is None else float(draws[:, -1].mean())


def _best_other(found: Found, seeded: bool, count: int) -> tuple[float, str]:
    names = {name for name, begun, n in found if begun == seeded and n == count and name != "auto"}
    return min((_mean(found, name, seeded, count), name) for name in names) if names else (
        float("nan"), "–"
    )  # fmt: skip


def _headline(places: Sequence[Landscape], found: Mapping[str, Found]) -> str:
    lines = []
    for place in places:
        for ours, theirs in ((20, 50), (100, 100)):
            here = found[place.name]
            mean = _mean(here, "auto", True, ours)
            other, name = _best_other(here, False, theirs)
            seeded, second = _best_other(here, True, theirs)
            draws = here.get(("auto", True, ours))
            if draws is None or np.isnan(other):
                continue
            lines.append([
                place.name, f"{ours} to {theirs}", f"{mean:.4g}", f"{other:.4g} ({name})",
                _verdict(mean, other), f"{seeded:.4g} ({second})",
                f"{place.value(place.uniform()):.4g}", f"{place.best:.4g}", str(len(draws)),
            ])  # fmt: skip
    header = ["subject", "evaluations", "auto", "best other, without seeds", "auto is",
              "best other, with seeds", "uniform", "optimum", "draws"]  # fmt: skip
    return table(header, lines)


def _verdict(ours: float, theirs: float) -> str:
    if abs(ours - theirs) <= 1e-5 * abs(theirs):
        return "equal"
    return "better" if ours < theirs else "**worse**"


def _subject(place: Landscape, found: Found) -> str:
    parts = [f"## {place.name}\n"]
    largest = max(count for _, _, count in found)
    for seeded in (False, True):
        names = {name for name, begun, _ in found if begun == seeded}
        lines = [
            [name, *(_cell(found.get((name, seeded, count))) for count in COUNTS)]
            for name in sorted(names, key=lambda n: _last(found, n, seeded))
        ]
        begun = "With seeds" if seeded else "Without seeds"
        parts += [f"### {begun}, {place.name}\n"]
        picture = _picture(place, found, seeded, largest)
        parts += [f"![best so far of all algorithms](../images/search/{picture})\n"]
        parts += [table(["algorithm", *(f"after {count}" for count in COUNTS)], lines), ""]
    return "\n".join(parts)


def _last(found: Found, name: str, seeded: bool) -> tuple[float, str]:
    counts = [n for who, begun, n in found if (who, begun) == (name, seeded)]
    return _mean(found, name, seeded, max(counts)), name


def _cell(draws: np.ndarray | None) -> str:
    if draws is None:
        return "–"
    spread = f" ± {draws[:, -1].std(ddof=1):.2g}" if len(draws) > 1 else ""
    return f"{draws[:, -1].mean():.4g}{spread}"


def _picture(place: Landscape, found: Found, seeded: bool, count: int) -> str:
    """Writes it; returns its name."""
    algorithms: list[dict[str, Any]] = [
        {"name": name, "seeded": begun, "mean": draws.mean(0).tolist(),
         "least": draws.min(0).tolist(), "largest": draws.max(0).tolist()}
        for (name, begun, n), draws in sorted(found.items()) if n == count
    ]  # fmt: skip
    shown = {"name": place.name, "trials": count, "best": place.best, "algorithms": algorithms}
    drawn = str(curves(shown, seeded)).replace(
        "<svg ",
        '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12" ', 1,
    )  # fmt: skip
    slug = re.sub(r"\W+", "-", place.name.lower()).strip("-")
    name = f"{slug}-{'seeded' if seeded else 'unseeded'}.svg"
    PICTURES.mkdir(parents=True, exist_ok=True)
    (PICTURES / name).write_text(drawn + "\n", encoding="utf-8")
    return name

"""``python -m model_zoo [names]``: check what is not in the results yet."""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.ledger import Ledger

from model_zoo import subjects
from model_zoo.page import page
from model_zoo.processes import checked
from model_zoo.seconds import own_seconds, total_seconds

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "zoo.md"
LIMIT = 600  # seconds a model


def main() -> None:
    """Run the missing models of all sources, or those whose names match the patterns."""
    parser = argparse.ArgumentParser(prog="python -m model_zoo", description=__doc__)
    parser.add_argument("patterns", nargs="*", help="source:name, with * and ?; all without")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=int, default=LIMIT, help="seconds a model")
    parser.add_argument("--again", action="store_true", help="also what failed before")
    parser.add_argument("--redo", action="store_true", help="everything, done or not")
    parser.add_argument("--one", metavar="NAME", help="check one model here and print its line")
    parser.add_argument("--page", action="store_true", help="write docs/zoo.md and end")
    given = parser.parse_args()
    if given.one:
        from model_zoo.checking import check

        print(json.dumps(check(given.one)))
        return
    ledger = Ledger("zoo", RESULTS)
    done = {row["cell"]["model"]: row["result"] for row in ledger.rows()}
    if given.page:
        PAGE.write_text(page(done), encoding="utf-8")
        return
    wanted = [
        spec
        for source in subjects.SOURCES
        if any(p.partition(":")[0] in (source, "*") for p in given.patterns or ["*"])
        for spec in (f"{source}:{name}" for name in subjects.names(source))
        if any(fnmatch(spec, pattern) for pattern in given.patterns or ["*"])
    ]
    todo = [
        spec
        for spec in wanted
        if given.redo or spec not in done or (given.again and done[spec]["verdict"] == "failed")
    ]
    print(f"{len(wanted)} models, {len(todo)} to check", flush=True)
    with ThreadPoolExecutor(given.jobs) as pool:
        running = {pool.submit(checked, spec, given.limit): spec for spec in todo}
        for number, future in enumerate(as_completed(running), 1):
            spec, row = running[future], future.result()
            ledger.write({"model": spec}, row, total_seconds(row))
            print(f"{number}/{len(todo)} {spec}: {in_words(row)}", flush=True)


def in_words(row: dict) -> str:
    """One line."""
    if row["verdict"] == "failed":
        return f"FAILED at {row.get('step', '?')}: {row.get('why')}"
    seconds, own = total_seconds(row), own_seconds(row)
    even = row.get("even", {})
    return (
        f"{row['verdict']}, {row['of_effect']:.0e} by {row['reference']}, {row['left']:.0%} left, "
        f"{row['surgery']}/{even.get('surgery', 'failed')}, {seconds:.0f} s, ours {own:.1f}"
    )


if __name__ == "__main__":
    main()

"""``secateur search``: widths by trials, with any algorithm, under budgets."""

from __future__ import annotations

import json

import pytest

from command_cases import secateur, write_recipe
from secateur.searching import ALGORITHMS

SEARCH = {"trials": 6}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    write_recipe(folder, search=SEARCH, data={"source": "digits", "limit": 120, "batch_size": 20})
    return folder


@pytest.mark.xdist_group("search")
@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS.names()))
def test_every_algorithm_keeps_the_budget_and_is_no_worse_than_its_seeds(place, algorithm):
    run = f"run-{algorithm}"
    words = ("search", "recipe.yaml", "--algorithm", algorithm, "--output", run, "--json")
    done = secateur(place, *words)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((place / run / "metrics.json").read_text())
    assert metrics["after"]["flops"] <= 0.5 * metrics["before"]["flops"]
    trials = metrics["choice"]["trials"]
    assert [trial["name"] for trial in trials][:2] == ["knapsack", "uniform"]
    # Of equal places the search may know no others than the seeds.
    assert (2 if algorithm == "bisection" else 3) <= len(trials) <= 6
    assert trials[metrics["choice"]["taken"]]["loss"] == min(trial["loss"] for trial in trials)
    assert metrics["recipe"]["search"]["algorithm"] == algorithm
    assert len({json.dumps([t["widths"], t["branches"]]) for t in trials}) == len(trials)


@pytest.mark.xdist_group("search")
def test_an_interrupted_search_goes_on_with_its_trials(place):
    words = ("search", "recipe.yaml", "--algorithm", "annealing", "--json")
    assert secateur(place, *words, "--output", "whole").returncode == 0
    assert secateur(place, *words, "--output", "cut").returncode == 0
    first, second = (
        json.loads((place / run / "metrics.json").read_text())["choice"]["trials"]
        for run in ("whole", "cut")
    )
    assert [t["widths"] for t in first] == [t["widths"] for t in second]
    # As if it had been killed while the last trial was written, in the middle of a line.
    cut = place / "cut"
    ledger = cut / "study" / "journal.log"
    lines = ledger.read_text().splitlines(keepends=True)
    claims = [n for n, line in enumerate(lines) if '"state":0' in line]
    ledger.write_text("".join(lines[: claims[-1] + 1]) + lines[claims[-1] + 1][:40])
    events = (cut / "journal.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in events if '"prune 1"' not in line and '"measure"' not in line]
    (cut / "journal.jsonl").write_text("".join(kept))
    (cut / "metrics.json").unlink()
    again = secateur(place, "resume", "cut", "--json")
    assert again.returncode == 0, again.stderr
    third = json.loads((cut / "metrics.json").read_text())["choice"]["trials"]
    assert [t["widths"] for t in third] == [t["widths"] for t in first]
    kept = ledger.read_text().splitlines(keepends=True)
    assert kept[: claims[-1] + 1] == lines[: claims[-1] + 1]
    claimed = [json.loads(line) for line in kept[claims[-1] :] if '"state":0' in line]
    assert [line["trial_id"] for line in claimed] == [len(third) - 1] * 2  # the last one alone
    assert not (cut / "scores" / "trials-1.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--algorithm", "anealing"), "did you mean 'annealing'"),
        (("--trials", "0"), "search.trials"),
        (("--minutes", "-1"), "search.minutes"),
    ],
)
def test_what_makes_no_sense_is_said_at_once(place, words, said):
    done = secateur(place, "search", "recipe.yaml", *words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_a_search_needs_calibration(tmp_path):
    write_recipe(tmp_path, search=SEARCH, data=None)
    done = secateur(tmp_path, "search", "recipe.yaml")
    assert done.returncode == 2 and "compensate" in done.stderr

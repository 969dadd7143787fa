"""``secateur compare-methods``: contestants and controls at ratios and seeds, on digits."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import secateur as sc
from command_cases import RECIPE, secateur, write_recipe
from secateur.job.contests import Comparison
from secateur.job.method_comparison import widened
from secateur.planning import describe
from secateur.reports.methods import Mean, beside, means, words

TRAINING = {"epochs": 2, "learning_rate": 0.05}
COMPARE = {
    "criteria": ["l1", "bn-scale"],
    "methods": {"compensated": {"pruning": {"compensate": True}, "finetune": None}},
    "ratios": [0.6, 0.4],
    "seeds": 2,
}
BASE = {
    "target": {},
    "data": {"source": "digits", "limit": 80, "batch_size": 20},
    "pruning": {"scope": "global", "compensate": False},
    "train_dense": TRAINING,
    "finetune": {"epochs": 1},
}


def compared(place, *words):
    done = secateur(place, "compare-methods", "recipe.yaml", "--output", "out", "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def untimed(document):
    cells = [{k: v for k, v in c.items() if k != "seconds"}
             for contestant in document["contestants"] for c in contestant["cells"]]  # fmt: skip
    return [c["name"] for c in document["contestants"]], cells, document["dense"]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    place = tmp_path_factory.mktemp("methods")
    write_recipe(place, **BASE, compare=COMPARE)
    return place, compared(place, "--markdown", "page.md")


def test_contestants_and_controls_keep_the_budget_and_are_measured(comparison):
    place, document = comparison
    names = [c["name"] for c in document["contestants"]]
    assert names == ["l1", "bn-scale", "compensated", "random", "uniform", "small dense net"]
    assert len(document["dense"]) == 2
    assert (document["missing"], document["split"]) == (0, "test")
    for contestant in document["contestants"]:
        assert {(c["ratio"], c["seed"]) for c in contestant["cells"]} == {
            (r, s) for r in (0.6, 0.4) for s in (0, 1)
        }
        for cell in contestant["cells"]:
            assert 0 < cell["share"] <= cell["ratio"]
            assert 0 <= cell["validation"] <= 1 and 0 <= cell["test"] <= 1
    assert document == json.loads((place / "out" / "methods.json").read_text())
    page = (place / "out" / "methods.html").read_text()
    assert page.count("<svg") == 1 and "http" not in page.replace("http-equiv", "")
    assert "| random (control) |" in (place / "page.md").read_text()
    assert (place / "page.svg").read_text().startswith("<svg xmlns=")
    assert not list((place / "out").glob("cell-*"))  # models are not kept


def test_a_cell_is_what_a_run_of_its_recipe_gives(comparison):
    place, document = comparison
    own = {**BASE, "seed": 1, "target": {"flops": 0.4}, "output": "alone"}
    own["pruning"] = {**BASE["pruning"], "criterion": "l1"}
    write_recipe(place, "alone.yaml", **own)
    done = secateur(place, "run", "alone.yaml", "--json")
    assert done.returncode in (0, 3), done.stderr
    metrics = json.loads(done.stdout)
    cells = next(c for c in document["contestants"] if c["name"] == "l1")["cells"]
    cell = next(c for c in cells if (c["ratio"], c["seed"]) == (0.4, 1))
    assert cell["test"] == metrics["after"]["metric"]["accuracy"]
    assert cell["share"] == metrics["after"]["flops"] / metrics["before"]["flops"]


def test_it_goes_on_where_it_was_cut_off_and_in_several_processes(comparison, tmp_path):
    place, document = comparison
    ledger = place / "out" / "methods-0.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[:-3]) + lines[-3][:40])
    assert untimed(compared(place)) == untimed(document)
    write_recipe(tmp_path, **BASE, compare=COMPARE)
    shared = compared(tmp_path, "--workers", "2")
    assert untimed(shared) == untimed(document)
    assert len(list((tmp_path / "out").glob("methods-*.jsonl"))) == 2


def test_what_a_method_cannot_do_is_said_and_the_others_go_on(tmp_path):
    wide = {"pruning": {"layers": {"0": "keep", "3": "keep"}}}
    compare = {"criteria": ["l2"], "methods": {"kept": wide}, "ratios": [0.3], "seeds": 1}
    write_recipe(tmp_path, **{**BASE, "train_dense": None, "finetune": None}, compare=compare)
    document = compared(tmp_path)
    cells = {c["name"]: c["cells"] for c in document["contestants"]}
    assert list(cells) == ["l2", "kept", "random", "uniform"]  # no dense training, no small net
    assert "flops" in cells["kept"][0]["error"] and "test" in cells["l2"][0]
    page = (tmp_path / "out" / "methods.html").read_text()
    assert "What could not be done" in page


def test_no_cell_of_another_budget_is_taken_for_this_one(tmp_path):
    write_recipe(tmp_path, **BASE)
    document = {**RECIPE, **BASE, "folder": str(tmp_path)}
    cells = []
    for budget in ("flops", "params"):
        compare = {**COMPARE, "budget": budget}
        comparison = Comparison.of({**document, "compare": compare}, "recipe", tmp_path)
        cells.append({cell.digest for cell in comparison.cells()})
    assert len(cells[0]) == 6 * 2 * 2 and not cells[0] & cells[1]


def test_a_page_of_a_part_says_so(comparison):
    _, document = comparison
    assert not any("NOT COMPLETE" in text for text in words(document))
    part = {**document, "missing": 3, "split": "validation"}
    told = " ".join(words(part))
    assert "NOT COMPLETE: 3 cells" in told and "There is no test split" in told


def test_intervals_are_those_of_students_t_and_differences_are_in_pairs():
    values = [0.91, 0.93, 0.9, 0.95]
    mean = Mean.of(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert abs(mean.value - mean.half - low) < 1e-4 and abs(mean.value + mean.half - high) < 1e-4
    assert math.isnan(Mean.of([0.5]).half)
    for count in range(2, 12):
        drawn = np.random.default_rng(count).random(count).tolist()
        half = stats.t.ppf(0.975, count - 1) * stats.sem(drawn)
        assert abs(Mean.of(drawn).half / half - 1) < (1e-3 if count < 11 else 0.15)
    cells = [{"ratio": 0.5, "seed": s, "test": v} for s, v in enumerate((0.9, 0.8))]
    other = [{"ratio": 0.5, "seed": s, "test": v} for s, v in ((1, 0.7), (2, 0.1))]
    document = {
        "ratios": [0.5, 0.25],
        "higher_is_better": True,
        "contestants": [{"name": "a", "cells": cells}, {"name": "b", "cells": other}],
    }
    found = beside(document, document["contestants"][0], "b")
    assert list(found) == [0.5] and abs(found[0.5].value - 0.1) < 1e-12 and found[0.5].count == 1
    assert list(means(document, document["contestants"][0])) == [0.5]


def test_new_weights_have_the_spread_of_those_drawn_for_fewer_inputs():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(8, 64, 3), nn.ReLU(), nn.Conv2d(64, 32, 3), nn.Flatten(), nn.Linear(32 * 16, 4)
    )
    inputs = torch.zeros(2, 8, 8, 8)
    structure = sc.trace(model, inputs)
    groups = {tuple(m.tensor for m in g.members if m.role == "out"): g for g in structure.groups}
    first = next(g for names, g in groups.items() if "0.weight" in names)
    remove = {first.name: tuple(range(48))}
    plan = describe(structure, remove, type(model).__name__, {})
    small = sc.apply(model, plan, inputs, structure=structure)
    before = {name: p.clone() for name, p in small.named_parameters()}
    widened(small, structure, remove)
    after = dict(small.named_parameters())
    # 16 of 64 inputs are left of the second convolution: its variance grows fourfold.
    assert torch.allclose(after["2.weight"], 2 * before["2.weight"])
    for name in ("0.weight", "0.bias", "2.bias", "4.weight", "4.bias"):
        assert torch.equal(after[name], before[name])
    bound = 1 / math.sqrt(16 * 9)  # of torch's own initialisation for so many inputs
    assert 0.98 * bound < float(after["2.weight"].detach().abs().max()) <= bound * (1 + 1e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"compare": None}, "nothing is compared"),
        ({"compare": {"criteria": ["taylr"]}}, "did you mean"),
        ({"compare": {"criteria": ["l1"], "ratios": [1.5]}}, "between 0 and 1"),
        ({"compare": {"criteria": ["l1"], "ratio": [0.5]}}, "unknown key 'ratio'"),
        ({"compare": {"criteria": ["l1"], "methods": {"l1": {}}}}, "two contestants"),
        ({"compare": {"criteria": ["l1"], "methods": {"a": {"prunning": {}}}}}, "prunning"),
        ({"compare": {"methods": {"a": {"train_dense": None}}}}, "the same dense model"),
        ({"compare": {"criteria": ["l1"]}, "data": None, "input": [2, 1, 8, 8],
          "finetune": None, "train_dense": None}, "no data to compare on"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_said_beforehand(tmp_path, changes, said):
    document = {**RECIPE, **BASE, **changes}
    write_recipe(tmp_path, **document)
    done = secateur(tmp_path, "compare-methods", "recipe.yaml", "--output", "out")
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_a_recipe_without_the_section_is_told_so(tmp_path):
    write_recipe(tmp_path)
    done = secateur(tmp_path, "compare-methods", "recipe.yaml")
    assert done.returncode == 2 and "no section 'compare'" in done.stderr

"""``secateur solve`` and trials that an interruption must not lose."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from command_cases import secateur, write_recipe
from secateur.planning import PruningPlan
from secateur.surgery.storing import read_tensors


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a finished run by the default criterion, ``run``."""
    folder = tmp_path_factory.mktemp("solve")
    write_recipe(folder, pruning={"refine": 4})
    done = secateur(folder, "run", "recipe.yaml", "--output", "run", "--json")
    assert done.returncode in (0, 3), done.stderr
    return folder


pytestmark = pytest.mark.xdist_group("solve")


def answered(done) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_chooses_by_trials_and_says_which(place):
    events = [json.loads(line) for line in (place / "run" / "journal.jsonl").open()]
    (event,) = [event for event in events if event["stage"] == "prune 1"]
    names = [trial["name"] for trial in event["trials"]]
    assert names[0] == "knapsack" and 1 <= len(names) <= 4
    plan = PruningPlan.load(place / "run" / "plan.json")
    assert plan.why["criterion"] == "obs" and plan.why["scope"] == "knapsack"


def test_another_budget(place):
    document = answered(secateur(place, "solve", "run", "--target", "flops=0.3x", "--json"))
    (row,) = document["plans"]
    assert row["flops_share"] <= 0.3 and row["loss"] > 0
    assert PruningPlan.load(place / row["plan"]).remove
    shown = secateur(place, "solve", "run", "--target", "flops=0.3x")
    assert shown.returncode == 0 and "expected loss" in shown.stdout


def test_a_budget_of_bytes_is_named_as_it_was_given(place):
    document = answered(secateur(place, "solve", "run", "--target", "bytes=0.5x", "--json"))
    (row,) = document["plans"]
    assert row["budget"] == {"bytes": "0.5x"} and Path(row["plan"]).name == "bytes-0.5x.json"
    plan = PruningPlan.load(place / row["plan"])
    assert plan.why["budget"] == {"bytes": "0.5x"}


def test_the_front_falls_and_its_losses_rise(place):
    document = answered(
        secateur(place, "solve", "run", "--front", "--output", "elsewhere", "--json")
    )
    flops = [row["flops"] for row in document["plans"]]
    losses = [row["loss"] for row in document["plans"]]
    assert len(flops) > 3
    assert flops == sorted(flops, reverse=True) and losses == sorted(losses)
    assert all(Path(row["plan"]).parent == Path("elsewhere") for row in document["plans"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "give --target flops=0.3x, or --front"),
        (["run", "--front", "--target", "flops=0.5x"], "leave --target out"),
        (["run", "--target", "flops"], "--target wants KIND=AMOUNT"),
        (["run", "--target", "flops=0.0001x"], "the smallest reachable is"),
        (["run", "--target", "flops=0.5x", "--scope", "nothing"], "unknown policy 'nothing'"),
        (["nowhere", "--target", "flops=0.5x"], "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(place, words, message):
    done = secateur(place, "solve", *words)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr


def test_a_run_without_scores(place):
    shutil.copytree(place / "run", place / "old")
    shutil.rmtree(place / "old" / "scores")
    done = secateur(place, "solve", "old", "--target", "flops=0.5x")
    assert done.returncode == 2 and "kept no scores; run the recipe again" in done.stderr


def test_trials_of_an_interrupted_run_are_not_measured_again(place):
    """A line of the file of trials is believed: with another loss in it, another choice is made."""
    run = secateur(place, "run", "recipe.yaml", "--output", "twice", "--json")
    assert run.returncode in (0, 3), run.stderr
    trials = place / "twice" / "scores" / "trials-1.jsonl"
    lines = [json.loads(line) for line in trials.open()]
    assert len(lines) >= 2
    journal = place / "twice" / "journal.jsonl"
    kept = [line for line in journal.open() if '"prune' not in line and '"stage": "dense"' in line]
    whole = [line for line in journal.open() if json.loads(line)["stage"] in ("trace", "dense")]
    assert kept
    journal.write_text("".join(whole))
    (place / "twice" / "metrics.json").unlink()
    lines[1][1] = [0.0 for _ in lines[1][1]]  # the uniform answer, as if it lost nothing
    text = "".join(json.dumps(line) + "\n" for line in lines) + '["cut sho'
    trials.write_text(text)
    again = secateur(place, "resume", "twice", "--json")
    assert again.returncode in (0, 3), again.stderr
    events = [json.loads(line) for line in journal.open()]
    (event,) = [event for event in events if event["stage"] == "prune 1"]
    assert event["trials"][1]["loss"] == 0.0
    assert event["trials"][0]["seconds"] == lines[0][2]


LINEAR = """
from torch import nn

def build() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Linear(20, 16), nn.ReLU(),
                         nn.Linear(16, 10))
"""


def test_plans_of_a_turned_run_come_with_the_weights_they_are_for(tmp_path):
    (tmp_path / "linear.py").write_text(LINEAR, encoding="utf-8")
    write_recipe(tmp_path, model="linear.py:build")
    done = secateur(tmp_path, "run", "recipe.yaml", "--output", "run", "--json")
    assert done.returncode in (0, 3), done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [one["group"] for one in metrics["choice"]["turned"]] == ["1"]
    document = answered(secateur(tmp_path, "solve", "run", "--target", "flops=0.4x", "--json"))
    (row,) = document["plans"]
    turned, given = (
        read_tensors(tmp_path / path) for path in (document["weights"], "run/dense.safetensors")
    )
    assert not torch.equal(turned["1.weight"], given["1.weight"])
    wide = turned["2.weight"] @ turned["1.weight"]
    torch.testing.assert_close(wide, given["2.weight"] @ given["1.weight"], rtol=1e-4, atol=1e-5)
    done = secateur(tmp_path, "apply", row["plan"], "linear.py:build", "--weights",
                    document["weights"], "--input", "1,1,8,8", "--output", "pruned")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout
    shown = secateur(tmp_path, "solve", "run", "--target", "flops=0.4x")
    assert f"--weights {document['weights']}" in shown.stdout

"""``secateur sensitivity``: every point is what pruning that group alone gives."""

from __future__ import annotations

import json
import signal
import time

import pytest
import torch

import secateur as sc
from command_cases import secateur, started, write_recipe
from secateur.config import load_recipe
from secateur.job.evaluating import with_dense_weights
from secateur.job.subjects import load_subject

DATA = {"source": "digits", "limit": 200, "batch_size": 20}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sensitivity")
    write_recipe(folder, data=DATA, train_dense={"epochs": 3, "learning_rate": 0.1})
    plain = {"criterion": "l2-own", "compensate": False, "recalibrate": False}
    write_recipe(
        folder, "plain.yaml", data=DATA, train_dense={"epochs": 3, "learning_rate": 0.1},
        pruning=plain,
    )  # fmt: skip
    return folder


def test_points_are_what_the_pruned_model_gives(place):
    done = secateur(place, "sensitivity", "plain.yaml", "--output", "plain", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    recipe = load_recipe(place / "plain" / "recipe.yaml")
    subject = load_subject(recipe)
    model = with_dense_weights(subject.build(), place / "plain")
    structure = sc.trace(model, subject.example_inputs)
    assert {group["group"] for group in found["groups"]} == {g.name for g in structure.groups}
    images, targets = (
        torch.stack([torch.as_tensor(row[n]) for row in subject.data.val]) for n in (0, 1)
    )
    for group in found["groups"]:
        own = next(g for g in structure.groups if g.name == group["group"])
        norms = sum(
            (model.get_parameter(m.tensor).detach().reshape(own.size, -1) ** 2).sum(1)
            for m in own.members
            if m.role == "out"
        )
        assert group["units"] == own.size
        for point in group["points"]:
            # the weakest by the norm of the rows that make them, cut and measured by hand
            gone = tuple(sorted(norms.argsort()[: point["removed"]].tolist()))
            pruned = sc.apply(
                model, sc.PruningPlan(remove={own.name: gone}), subject.example_inputs
            )
            with torch.no_grad():
                logits = pruned.eval()(images)
            loss = torch.nn.functional.cross_entropy(logits, targets)
            assert point["loss"] == pytest.approx(float(loss), rel=1e-4)
            right = float((logits.argmax(1) == targets).float().mean())
            assert point["accuracy"] == pytest.approx(right, abs=1e-6)
            assert (
                point["flops"] == structure.cost({own.name: gone}).flops / found["dense"]["flops"]
            )
    prices = [group["price"] for group in found["groups"]]
    assert prices == sorted(prices)
    assert "Sensitivity of net.py:build" in (place / "plain" / "sensitivity.html").read_text()


def test_it_goes_on_where_it_was_cut_off_and_branches_and_compensation_take_part(place):
    words = ("sensitivity", "recipe.yaml", "--output", "whole", "--levels", "0.3,0.6", "--json")
    first = secateur(place, *words)
    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    assert found["compensated"] and found["criterion"] == "obs"
    ledger = place / "whole" / "sensitivity.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[:2]) + lines[2][:30])
    again = secateur(place, *words)
    assert again.returncode == 0, again.stderr
    kept = ledger.read_text().splitlines(keepends=True)
    assert kept[:2] == lines[:2] and len(kept) == len(lines)  # their seconds, too, are the old ones
    strip = lambda rows: [{k: v for k, v in json.loads(r).items() if k != "seconds"} for r in rows]  # noqa: E731
    assert strip(kept) == strip(lines)
    other = secateur(place, *words, "--criterion", "l2")
    assert other.returncode == 2 and "another 'pruning'" in other.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--levels", "0,0.5"), "between 0 and 1"),
        (("--levels", "half"), "wants numbers"),
        (("--criterion", "l3"), "unknown criterion"),
        (("--data", "digit"), "did you mean"),
    ],
)
def test_what_makes_no_sense_is_said(place, words, said):
    done = secateur(place, "sensitivity", "recipe.yaml", "--output", f"bad{len(said)}", *words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert not (place / f"bad{len(said)}").exists()


def test_ctrl_c_says_how_to_go_on(place):
    words = ("sensitivity", "recipe.yaml", "--output", "stopped")
    with started(place, *words) as process:
        end = time.monotonic() + 120
        while not (place / "stopped" / "sensitivity.jsonl").exists():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command" in error

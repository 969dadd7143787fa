"""Recipes whose trainings make zeros or choose units: what is in the run at the end."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import secateur as sc
from command_cases import secateur, write_recipe
from secateur.config import read_recipe
from secateur.job.checking import check_recipe

TRAIN = {"epochs": 3, "learning_rate": 0.05, "batch_size": 10}
QUICK = {"target": {}, "pruning": {}, "export": [], "output": "run"}


def run(folder, **changes):
    path = write_recipe(folder, **{**QUICK, **changes})
    done = secateur(folder, "run", path, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), folder / "run"


def tensors(place) -> dict[str, torch.Tensor]:
    return load_file(place / "model" / "model.safetensors")


def zeros_of(found: dict[str, torch.Tensor]) -> tuple[int, int]:
    weights = [t for n, t in found.items() if t.dim() > 1]
    return sum(int((t == 0).sum()) for t in weights), sum(t.numel() for t in weights)


def events(place) -> dict[str, dict]:
    lines = (place / "journal.jsonl").read_text().splitlines()
    return {event["stage"]: event for event in map(json.loads, lines)}


def test_a_dense_training_that_prunes_leaves_zeros_that_a_later_one_keeps(tmp_path):
    during = {"method": "gradual", "zeros": 0.6, "every": 2}
    _, place = run(tmp_path, train_dense={**TRAIN, "during": during}, finetune=TRAIN)
    zero, total = zeros_of(tensors(place))
    assert zero == round(0.6 * total)
    kept = load_file(place / "dense-masks.safetensors")
    assert all(not tensors(place)[name][~mask].any() for name, mask in kept.items())


def test_a_ticket_is_zero_by_so_much_and_keeps_its_masks(tmp_path):
    ticket = {"zeros": 0.5, "rounds": 2, "rewind": 1}
    _, place = run(tmp_path, train_dense={**TRAIN, "ticket": ticket})
    zero, total = zeros_of(tensors(place))
    assert zero == round(0.5 * total)


@pytest.mark.parametrize("criterion", ["snip", "synflow"])
def test_masks_before_a_training_hold_in_it(tmp_path, criterion):
    before = {"criterion": criterion, "zeros": 0.5, "rounds": 4}
    _, place = run(tmp_path, train_dense={**TRAIN, "before": before})
    zero, total = zeros_of(tensors(place))
    assert zero == round(0.5 * total)


def test_units_that_a_dense_training_chose_leave(tmp_path):
    during = {"method": "soft-filters", "units": 0.5}
    document, place = run(tmp_path, train_dense={**TRAIN, "during": during})
    chosen = events(place)["dense"]["remove"]
    assert sum(map(len, chosen.values())) == 6  # half of six in each of two groups
    plan = sc.PruningPlan.load(place / "plan.json")
    assert {name: list(units) for name, units in plan.remove.items()} == chosen
    assert document["after"]["params"] < document["before"]["params"]
    assert document["after"]["metric"] == document["before"]["metric"]  # it was zero already


def test_units_that_the_last_training_chose_leave_after_it(tmp_path):
    method = {"slimming": {"weight": 0.01, "remove": 0.5}}
    _, place = run(
        tmp_path, target={"flops": "0.8x"}, pruning={"refine": 0}, train_dense=TRAIN,
        finetune={**TRAIN, "regularise": method},
    )  # fmt: skip
    told = events(place)
    assert told["prune 2"]["flops"] < told["prune 1"]["flops"]
    chosen = told["finetune"]["remove"]
    plan = sc.PruningPlan.load(place / "plan.json")
    left = {n: len(units) for n, units in plan.remove.items()}
    first = sc.PruningPlan.load(place / "steps" / "prune-1" / "plan.json")
    for name, units in chosen.items():
        assert left[name] == len(first.remove.get(name, ())) + len(units)
    assert told["prune 2"]["verification"]["ok"]
    for kind in ("accuracy", "loss"):  # what left was zero already
        assert told["prune 2"]["validation"][kind] == pytest.approx(
            told["finetune"]["validation"][kind], abs=1e-6
        )


def test_a_rewound_training_begins_with_the_weights_of_that_epoch(tmp_path):
    finetune = {**TRAIN, "rewind": 2, "learning_rate": 1e-12, "weight_decay": 0.0, "momentum": 0.0,
                "regularise": {"l2": {"weight": 0.0}}}  # fmt: skip
    _, place = run(tmp_path, train_dense=TRAIN, finetune=finetune)
    kept = load_file(place / "epochs" / "epoch-2.safetensors")
    weights = [name for name, tensor in kept.items() if tensor.dim() > 1]
    for name in weights:
        torch.testing.assert_close(tensors(place)[name], kept[name], rtol=0, atol=1e-6)
    dense = load_file(place / "dense.safetensors")
    assert any(not torch.equal(dense[name], kept[name]) for name in weights)


def test_features_and_attention_are_distilled_into_a_narrower_net(tmp_path):
    finetune = {**TRAIN, "distill": 0.5, "distill_features": 1.0, "distill_attention": 1.0}
    run(tmp_path, target={"flops": "0.6x"}, pruning={"refine": 0}, train_dense=TRAIN,
        finetune=finetune)  # fmt: skip


@pytest.mark.parametrize(("section", "changes", "sentence"), [
    ("between", {"during": {"method": "rigl"}}, "'between.during' makes zeros"),
    ("train_dense", {"rewind": 1, "epochs": 3}, "'train_dense.rewind' goes back"),
    ("finetune", {"rewind": 2, "epochs": 3}, "goes back to epoch 2 of train_dense, which has 0"),
    ("train_dense", {"during": {"method": "rigl"}}, "and so does the target"),
    ("train_dense", {"regularise": {"l0": None}}, "and so does the target"),
    ("train_dense", {"regularise": {"l0": None}, "search": True}, "share one dense net"),
    ("finetune", {"regularise": {"l3": {}}}, "unknown regulariser 'l3': known are"),
    ("finetune", {"during": {"method": "rigel"}}, "did you mean 'rigl'"),
])  # fmt: skip
def test_what_does_not_belong_together_is_refused_before_any_work(section, changes, sentence):
    changes = dict(changes)
    document = {"model": "net.py:build", "target": {"flops": 0.5}, section: changes}
    if changes.pop("search", False):
        document["search"] = {"space": {"finetune.epochs": [1, 2]}}
    with pytest.raises(sc.InputError, match=sentence):
        check_recipe(read_recipe(document | {"data": "digits"}))


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"during": {"zeros": 0.5}}, "'during' needs a method"),
    ({"during": {"method": "set"}, "before": {"zeros": 0.5}}, "both choose what becomes zero"),
    ({"ticket": {"zeros": 0.5, "rewind": 3}, "epochs": 3}, "cannot begin at epoch 3"),
    ({"before": {"zeros": 1.0}}, "less than 1"),
    ({"distill_at": ["0"]}, "distill_at names modules"),
])  # fmt: skip
def test_a_section_that_contradicts_itself_is_refused(changes, sentence):
    with pytest.raises(sc.InputError, match=sentence):
        read_recipe({"model": "net.py:build", "train_dense": changes})


def test_settings_of_methods_are_refused_before_the_dense_training(tmp_path):
    path = write_recipe(
        tmp_path, train_dense=TRAIN, finetune={"regularise": {"l1": {"wieght": 1.0}}}
    )
    done = secateur(tmp_path, "run", path, "--json")
    assert done.returncode == 2 and "unknown setting 'wieght'" in done.stderr
    assert "dense" not in done.stderr


def test_floors_of_further_metrics_are_measured_and_may_be_missed(tmp_path):
    floors = {"accuracy-under-noise": 0.0, "output-entropy": 9.0, "loss": 0.0}
    path = write_recipe(tmp_path, **{**QUICK, "target": {"flops": "0.9x"}, "floors": floors,
                                     "pruning": {"refine": 0}})  # fmt: skip
    done = secateur(tmp_path, "run", path, "--json")
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    assert [name for name, row in document["floors"].items() if row["holds"]] == [
        "accuracy-under-noise"
    ]
    missed = " ".join(document["missed"])
    assert "output-entropy of at least 9" in missed and "loss of at most 0" in missed


def test_trials_of_a_search_remove_what_their_training_chose(tmp_path):
    finetune = {**TRAIN, "epochs": 2, "regularise": {"slimming": {"weight": 0.01, "remove": 0.5}}}
    search = {"algorithm": "grid", "space": {"finetune.learning_rate": [0.01, 0.05]},
              "objective": ["accuracy", "params"], "trials": 2, "share": 1.0}  # fmt: skip
    path = write_recipe(
        tmp_path, target={"flops": "0.9x"}, pruning={"refine": 0}, train_dense=TRAIN,
        finetune=finetune, search=search, export=[], output="run",
    )  # fmt: skip
    done = secateur(tmp_path, "search", path, "--json")
    assert done.returncode in (0, 3), done.stderr
    document = json.loads(done.stdout)
    trials = [json.loads(line) for line in
              (tmp_path / "run" / "search" / "trials.jsonl").read_text().splitlines()]  # fmt: skip
    assert len(trials) >= 2
    # what a trial was told to cost is what the run that took its recipe costs at the end
    costs = {trial["outcome"]["measures"]["params"] for trial in trials}
    assert document["after"]["params"] in costs
    assert max(costs) < 0.7 * document["before"]["params"]


def test_zeros_of_l1_and_of_a_later_cut_are_both_held(tmp_path):
    """The weights of the first layer are cut, those of all others were brought to zero before."""
    _, place = run(
        tmp_path, train_dense={**TRAIN, "regularise": {"l1": {"weight": 0.1, "threshold": 0.02}}},
        sparsity={"criterion": "l1", "zeros": 0.5, "keep": ["3", "8"]}, finetune=TRAIN,
    )  # fmt: skip
    found, dense = tensors(place), load_file(place / "dense-masks.safetensors")
    assert sum(int((~mask).sum()) for mask in dense.values()) > 0
    assert all(not found[name][~mask].any() for name, mask in dense.items())
    assert int((found["0.weight"] == 0).sum()) >= round(0.5 * found["0.weight"].numel())

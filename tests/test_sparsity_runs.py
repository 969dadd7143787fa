"""Runs that zero single weights: how many, where, and that they stay zero."""

from __future__ import annotations

import json

import pytest
import torch

import secateur as sc
from command_cases import secateur, write_recipe
from secateur.config import load_recipe
from secateur.errors import InputError
from secateur.job.subjects import load_subject
from secateur.training.loop import finetune
from secateur.training.masks import zero_masks
from secateur.training.settings import FinetuneSettings

DATA = {"source": "digits", "limit": 200, "batch_size": 20}
DENSE = {"epochs": 2, "learning_rate": 0.1}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("sparsity")


def run(place, name, **changes):
    write_recipe(
        place, f"{name}.yaml", data=DATA, train_dense=DENSE, model_args={"width": 12}, **changes
    )
    done = secateur(place, "run", f"{name}.yaml", "--output", name, "--json")
    assert done.returncode == 0, done.stderr
    subject = load_subject(load_recipe(place / name / "recipe.yaml"))
    models = [sc.load(place / name / part, subject.build) for part in ("steps/sparsify", "model")]
    return json.loads((place / name / "metrics.json").read_text()), models


def test_removed_and_zero_together_are_the_total_and_stay_so_in_training(place):
    metrics, (cut, final) = run(
        place, "total", target={"params": "0.5x"}, sparsity={"total": 0.7},
        finetune={"epochs": 2, "learning_rate": 0.05, "momentum": 0.9},
    )  # fmt: skip
    dense = metrics["before"]["params"]
    rows = sum(p.shape[0] for p in final.parameters())
    assert abs(metrics["after"]["nonzero"] - 0.3 * dense) <= rows  # whole weights of whole rows
    assert metrics["before"]["nonzero"] == dense
    zeros = metrics["sparsity"]["zeros"]
    moved = 0
    for name, before in cut.named_parameters():
        after = final.get_parameter(name)
        if name in zeros:
            assert 0 < float((before == 0).float().mean()) == pytest.approx(zeros[name])
            assert torch.equal(after == 0, before == 0)
        moved += int((after != before).sum())
    assert moved > 0
    report = (place / "total" / "report.html").read_text()
    assert "Non-zero" in report


def test_two_of_four_without_a_target(place):
    metrics, (cut, final) = run(
        place, "pattern", target={}, sparsity={"pattern": "2:4", "keep": ["8"]},
        finetune={"epochs": 1, "learning_rate": 0.05},
    )  # fmt: skip
    assert metrics["after"]["flops"] == metrics["before"]["flops"]
    assert set(metrics["sparsity"]["zeros"]) == {"3.weight"}  # 12 channels; the first layer has 1
    assert set(metrics["sparsity"]["whole"]) == {"0.weight", "8.weight"}
    for model in (cut, final):
        weight = model.get_parameter("3.weight").detach()
        counts = (weight.movedim(1, -1).reshape(-1, 4) != 0).sum(1)
        assert (counts == 2).all()
        assert (model.get_parameter("8.weight") != 0).all()


@pytest.mark.parametrize(
    ("sparsity", "said"),
    [
        ({"pattern": "4:2"}, "N:M with N < M"),
        ({"pattern": "half"}, "N:M with N < M"),
        ({"pattern": "2:4", "zeros": 0.5}, "leave out zeros and total"),
        ({"zeros": 0.5, "total": 0.5}, "give one"),
        ({"zeros": 1.0}, "less than 1"),
        ({"method": "obd"}, "'random' or 'sampled'"),
        ({"keep": ["nowhere"]}, "no layer that can be cut"),
        ({"total": 0.999}, "ask for less"),
        ({"total": 0.1}, "less than what has left already"),
    ],
)
def test_what_makes_no_sense_is_said(place, sparsity, said):
    write_recipe(place, "bad.yaml", data=DATA, sparsity=sparsity)
    done = secateur(place, "run", "bad.yaml", "--output", f"bad-{len(said)}-{len(str(sparsity))}")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_masks_hold_under_every_optimizer_and_refuse_what_does_not_fit():
    torch.manual_seed(0)
    images, targets = torch.randn(40, 6), torch.randint(3, (40,))
    data = torch.utils.data.TensorDataset(images, targets)
    for optimizer in ("sgd", "adam", "adamw"):
        model = torch.nn.Linear(6, 3)
        with torch.no_grad():
            model.weight[:, ::2] = 0
        masks = zero_masks(model, ["weight"])
        before = model.weight.detach().clone()
        settings = FinetuneSettings(epochs=3, batch_size=8, optimizer=optimizer, weight_decay=0.1)
        finetune(model, data, settings, masks=masks)
        assert (model.weight[:, ::2] == 0).all() and (model.weight[:, 1::2] != 0).all()
        assert not torch.equal(model.weight, before)
    with pytest.raises(InputError, match="no parameter 'other'"):
        finetune(model, data, settings, masks={"other": masks["weight"]})
    with pytest.raises(InputError, match=r"shape \[2\]"):
        finetune(model, data, settings, masks={"weight": torch.ones(2, dtype=torch.bool)})

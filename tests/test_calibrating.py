"""Scores and repair from samples that are not the task's own: noise, or another data source."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import secateur as sc
from command_cases import secateur, write_recipe
from secateur.config import read_recipe
from secateur.job.calibrating import calibration
from secateur.protocols import Subject
from secateur.repair.compensation import compensate


def recipe(**pruning):
    return read_recipe({"model": "net.py:build", "target": {"flops": 0.5}, "pruning": pruning})


def subject(inputs) -> Subject:
    return Subject("net", nn.Identity(), nn.Identity, inputs, None)


def test_noise_has_the_shape_and_the_type_of_the_inputs():
    inputs = {
        "image": torch.zeros(2, 3, 8, 6), "row": torch.zeros(2, 5, dtype=torch.float64),
        "words": torch.tensor([[3, 9, 0]] * 2), "mask": torch.zeros(2, 3, dtype=torch.bool),
    }  # fmt: skip
    found = calibration(recipe(calibrate="noise"), subject(inputs))
    again = calibration(recipe(calibrate="noise"), subject(inputs))
    assert sum(len(batch["image"]) for batch, _ in found) == 1024
    for (batch, target), (other, _) in zip(found, again, strict=True):
        assert target is None
        for name, tensor in batch.items():
            assert tensor.dtype == inputs[name].dtype
            assert tensor.shape[1:] == inputs[name].shape[1:]
            assert torch.equal(tensor, other[name])
    images = torch.cat([batch["image"] for batch, _ in found])
    words = torch.cat([batch["words"] for batch, _ in found])
    assert set(words.unique().tolist()) == set(range(10))
    assert abs(float(images.mean())) < 0.1 and abs(float(images.std()) - 1) < 0.05
    near = (images[..., 1:] * images[..., :-1]).mean() / images.square().mean()
    assert float(near) > 0.3  # neighbours are alike


def test_without_data_and_without_noise_there_are_no_samples():
    assert calibration(recipe(), subject(torch.zeros(1, 3))) is None
    assert recipe().pruning.criterion == "l2" and not recipe().pruning.compensate
    noisy = recipe(calibrate="noise").pruning
    assert noisy.criterion == "obs" and noisy.compensate


def test_a_criterion_that_needs_labels_is_refused():
    with pytest.raises(sc.InputError, match="needs the labels of training samples"):
        calibration(recipe(calibrate="noise", criterion="taylor"), subject(torch.zeros(1, 3)))


def test_statistics_change_by_what_the_removal_changes():
    """On inputs that the network was not trained for, its batch norms must not take theirs."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6),
        nn.ReLU(), nn.Conv2d(6, 2, 1),
    )  # fmt: skip
    real = torch.randn(512, 3, 6, 6) + 1.0
    model.train()
    model[3].momentum = None
    with torch.no_grad():
        model(real)
    model.eval()
    structure = sc.trace(model, real[:2])
    strange = [3.0 * torch.randn(128, 3, 6, 6) for _ in range(4)]
    gone = {"0": [1, 4]}

    def moved(foreign: bool) -> float:
        found = compensate(model, structure, gone, strange, foreign=foreign).tensors
        variance = found["3.running_var"]
        return float((variance / model[3].running_var).log().abs().mean())

    assert moved(foreign=True) < 0.5 < moved(foreign=False)


@pytest.mark.parametrize(("spec", "message"), [
    ("noise", None), ("nowhere", "has none of the forms"), ("digits", None),
])  # fmt: skip
def test_a_run_says_what_it_was_calibrated_on(tmp_path, spec, message):
    data = {} if spec == "digits" else {"data": None, "input": [2, 1, 8, 8]}
    write_recipe(tmp_path, pruning={"calibrate": spec, "refine": 2}, **data)
    done = secateur(tmp_path, "run", "recipe.yaml", "--output", "run", "--json")
    if message:
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
        return
    assert done.returncode in (0, 3), done.stderr
    document = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert any(f"calibrated on {spec} instead" in note for note in document["notes"])
    assert document["choice"]["criterion"] == "obs" and document["choice"]["solved"]

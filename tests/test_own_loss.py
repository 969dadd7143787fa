"""A loss of the user's own, and a metric that the data choose where a recipe leaves it open."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

import secateur as sc
from secateur.config import read_recipe
from secateur.errors import InputError
from secateur.job import story
from secateur.job.contests import Comparison
from secateur.job.method_comparison import settled_comparison
from secateur.metrics import add_metric, told_worsening, worsening
from secateur.training.distillation import distillation_loss

QUICK = {
    "latency": {"runtime": "eager", "seconds": 0.1},
    "pruning": {"criterion": "taylor", "compensate": False},
}
CODE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 1))

def load():
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(1))
    y = (x.sum(1, keepdim=True) > 0).float()
    return TensorDataset(x[:40], y[:40]), TensorDataset(x[40:], y[40:])

def rows(outputs, targets):
    return (outputs - targets).square().mean(1)

def cut(outputs, targets):
    return (outputs.detach() - targets).square().mean()
"""


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 32), nn.ReLU())
        self.kind, self.value = nn.Linear(32, 3), nn.Linear(32, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.body(x)
        return {"kind": self.kind(x), "value": self.value(x)}


class Rows(Dataset):
    """Targets in a dict, of classes and of values."""

    def __init__(self, size: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(size, 6, generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        x = self.x[index]
        return x, {"kind": x[:3].argmax(), "value": x[3:5] * x[5]}


def two(outputs: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> torch.Tensor:
    kind = functional.cross_entropy(outputs["kind"], targets["kind"])
    return kind + functional.mse_loss(outputs["value"], targets["value"])


def whole(model: nn.Module, data: Rows) -> float:
    x = data.x
    targets = {"kind": x[:, :3].argmax(1), "value": x[:, 3:5] * x[:, 5:]}
    with torch.no_grad():
        return float(two(model(x), targets))


@pytest.mark.parametrize("distill", [0.0, 0.5])
def test_several_heads_are_scored_trained_and_reported_by_a_loss_of_ones_own(distill: float):
    torch.manual_seed(0)
    model, train, val = TwoHeads().eval(), Rows(256, 1), Rows(64, 2)
    result = sc.compress(
        model, train, val, target={"params": 0.5}, loss=two, epochs=4, learning_rate=0.1,
        distill=distill, recipe=QUICK,
    )  # fmt: skip
    before, after = (result.metrics[side]["metric"] for side in ("before", "after"))
    assert result.metrics["metric"] == "loss"
    assert before["loss"] == pytest.approx(whole(model, val), rel=1e-5)
    assert after["loss"] == pytest.approx(whole(result.model, val), rel=1e-5)
    if not distill:  # the dense model is untrained: its answers teach little
        assert after["loss"] < 0.9 * before["loss"]


def test_of_several_heads_none_drowns_the_others():
    generator = torch.Generator().manual_seed(0)
    taught = {"a": torch.randn(8, 3, generator=generator), "b": torch.zeros(8, 2) + 100.0}
    given = {"a": taught["a"] * 1.5, "b": taught["b"] * 1.5}
    loss = distillation_loss(given, taught, {"any": torch.zeros(8)}, 4.0)
    assert float(loss) == pytest.approx(0.25)  # (0.5 t)² / t² of each
    with pytest.raises(InputError, match="same shape"):
        distillation_loss({"a": torch.zeros(2, 3)}, {"a": torch.zeros(2, 4)}, {}, 4.0)


def recipe(folder: Path, **keys):
    (folder / "mine.py").write_text(CODE)
    document = {
        "model": "mine.py:build", "data": "mine.py:load", "target": {"params": 0.5},
        "folder": str(folder), "output": str(folder / "run"), "export": [], **QUICK, **keys,
    }  # fmt: skip
    return read_recipe(document, "here")


def test_a_recipe_names_a_function_of_a_file_or_of_torch(tmp_path: Path):
    name = "torch.nn.functional:binary_cross_entropy_with_logits"
    found = story.run(recipe(tmp_path, loss=name, finetune={"epochs": 1}))
    model = sc.load(tmp_path / "run" / "model", of_code("build"))
    x, y = of_code("load")()[1].tensors
    with torch.no_grad():
        expected = functional.binary_cross_entropy_with_logits(model(x), y)
    assert found["after"]["metric"]["loss"] == pytest.approx(float(expected), rel=1e-5)


def of_code(name: str) -> Any:
    space: dict[str, Any] = {}
    exec(CODE, space)
    return space[name]


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"loss": "mine.py:rows"}, r"returned \[2\]; expected one number"),
        ({"loss": "mine.py:cut"}, "cannot be derived"),
        ({"loss": "mine.py:rose"}, "did you mean 'rows'"),
        ({"metric": "accuracy"}, "accuracy is for classes"),
        ({"floors": {"f1": 0.5}}, "f1 is for classes"),
        (
            {"loss": "mine.py:rows", "finetune": {"label_smoothing": 0.1}},
            "label_smoothing' is of the built-in loss",
        ),
    ],
)
def test_what_cannot_be_judged_is_refused_before_there_is_a_folder(tmp_path, keys, sentence):
    with pytest.raises(InputError, match=sentence):
        story.run(recipe(tmp_path, **keys))
    assert not (tmp_path / "run").exists()


def test_data_choose_the_metric_that_a_recipe_leaves_open(tmp_path: Path):
    assert story.run(recipe(tmp_path))["metric"] == "loss"
    assert sc.load(tmp_path / "run" / "model", of_code("build")) is not None
    document = {
        "model": "mine.py:build", "data": "mine.py:load", "folder": str(tmp_path),
        "compare": {"criteria": ["l2"], "ratios": [0.5], "seeds": 1},
    }  # fmt: skip
    comparison = settled_comparison(Comparison.of(document, "here", tmp_path / "compared"))
    assert comparison.base(0).metric == "loss"


def test_a_metric_without_points_worsens_by_a_share_of_the_dense_value():
    assert worsening("accuracy", 0.9, 0.85) == pytest.approx(0.05)
    assert worsening("mse", 40.0, 42.0) == pytest.approx(0.05)
    assert worsening("mse", 40.0, 38.0) == pytest.approx(-0.05)
    assert worsening("mse", 0.0, 0.1) == math.inf
    add_metric("own:gain", lambda model, batches: 0.0)
    assert worsening("own:gain", -2.0, -2.1) == pytest.approx(0.05)
    assert told_worsening("mse", 0.05) == "5.00 %"
    assert told_worsening("accuracy", 0.05) == "5.00 points"


def test_the_largest_drop_of_a_mean_error_is_a_share(tmp_path: Path):
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1)).eval()
    x = torch.randn(64, 4)
    with torch.no_grad():  # the dense model is 10 off everywhere: half of it costs little of that
        data = TensorDataset(x, model(x) + 10)
    for allowed, reached in (("90%", True), (0.0, False)):
        result = sc.compress(
            model, data, data, target={"params": 0.3}, max_drop=allowed, epochs=0, metric="mae",
            recipe={**QUICK, "pruning": {"criterion": "random"}},
        )  # fmt: skip
        dense, after = (result.metrics[side]["metric"]["mae"] for side in ("before", "after"))
        assert result.reached == (after / dense - 1 <= (0.9 if reached else 0.0))

"""The whole road in one call, on a model that is at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import secateur as sc
from secateur.job.listening import Silent

QUICK = {"latency": {"runtime": "eager", "seconds": 0.2}}  # the default looks for 4 seconds


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1, stride=2),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 16, 10),
    )


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, TensorDataset, TensorDataset]:
    digits = load_digits()
    inputs = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    targets = torch.tensor(digits.target)
    train = TensorDataset(inputs[:1200], targets[:1200])
    val = TensorDataset(inputs[1200:], targets[1200:])
    model = small_net()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    torch.manual_seed(0)
    for _ in range(8):
        for x, y in DataLoader(train, 64, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model.eval(), train, val


def accuracy(model: nn.Module, data: TensorDataset) -> float:
    inputs, targets = data.tensors
    with torch.no_grad():
        return float((model.eval()(inputs).argmax(1) == targets).float().mean())


def test_half_the_flops_within_two_points(
    trained: tuple[nn.Module, TensorDataset, TensorDataset], tmp_path: Path
) -> None:
    model, train, val = trained
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    dense = accuracy(model, val)
    result = sc.compress(
        model, train=DataLoader(train, 64), val=val, target={"flops": "0.5x"}, max_drop="2pt"
    )
    assert result.metrics["after"]["flops"] <= 0.5 * result.metrics["before"]["flops"]
    assert result.metrics["verification"]["ok"]
    assert result.metrics["verification"]["error"] <= 1e-10
    assert accuracy(result.model, val) >= dense - 0.02
    assert result.reached
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert "FLOPs" in str(result)
    assert "<table" in result._repr_html_() and "<script" not in result._repr_html_()
    assert "FLOPs" in result.report(tmp_path / "report.html").read_text(encoding="utf-8")
    folder = sc.save(result.model, tmp_path / "saved")
    again = sc.load(folder, small_net).eval()
    assert torch.equal(again(val.tensors[0][:5]), result.model(val.tensors[0][:5]))


def test_without_data_it_prunes_and_does_not_repair(
    trained: tuple[nn.Module, TensorDataset, TensorDataset],
) -> None:
    model, _, val = trained
    result = sc.compress(model, target={"params": "0.4x"}, example_inputs=val.tensors[0][:1],
                         recipe=QUICK)  # fmt: skip
    assert result.metrics["after"]["params"] <= 0.4 * result.metrics["before"]["params"]
    assert result.metrics["before"]["metric"] is None
    assert sc.verify(model, result.model, result.plan, val.tensors[0][:2]).ok


def test_the_target_decides_what_is_reached(
    trained: tuple[nn.Module, TensorDataset, TensorDataset],
) -> None:
    model, train, val = trained
    result = sc.compress(
        model, train, val, target={"flops": "0.15x"}, max_drop="0.01pt", epochs=0, seed=1,
        recipe=QUICK,
    )  # fmt: skip
    assert not result.reached


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"target": {"flops": "12ms"}}, "flops wants"),
        ({"target": {"speed": 2}}, "unknown key 'speed'"),
        ({"target": {"flops": "0.0001x"}}, "smallest"),
    ],
)
def test_bad_arguments_get_a_sentence(
    trained: tuple[nn.Module, TensorDataset, TensorDataset],
    arguments: dict[str, dict[str, str]],
    sentence: str,
) -> None:
    model, train, val = trained
    with pytest.raises(sc.SecateurError, match=sentence):
        sc.compress(model, train, val, **arguments)  # type: ignore[arg-type]


class Lazy(Dataset):
    """A data set that is not made of tensors, so that its first samples alone are checked."""

    def __init__(self, tensors: tuple[torch.Tensor, ...]) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int):
        return self.tensors[0][index], self.tensors[1][index]


def altered(data: TensorDataset, number: int) -> Lazy:
    inputs, targets = data.tensors
    inputs = inputs.clone()
    inputs[number] = float("nan")
    return Lazy((inputs, targets))


@pytest.mark.parametrize("changes", [
    {"criterion": "l2", "recipe": {"latency": None, "pruning": {"compensate": False}}},
    {"criterion": "hrank", "recipe": {"latency": None, "pruning": {"recalibrate": False}}},
    {"target": {}, "recipe": {"latency": None, "sparsity": {"zeros": 0.5}}},
])  # fmt: skip
def test_a_late_sample_that_is_nan_is_refused_whatever_reads_it(
    trained: tuple[nn.Module, TensorDataset, TensorDataset], changes: dict
) -> None:
    model, train, val = trained
    given = {"target": {"flops": 0.5}, "epochs": 0, **changes}
    with pytest.raises(sc.InputError, match="given: train sample 700 has 64 values that are NaN"):
        sc.compress(model, altered(train, 700), val, **given)


def test_a_metric_that_is_nan_is_no_target_that_is_reached(
    trained: tuple[nn.Module, TensorDataset, TensorDataset],
) -> None:
    model, train, val = trained
    result = sc.compress(
        model, train, altered(val, 500), target={"flops": 0.5}, criterion="l2", epochs=0,
        recipe={"latency": None},
    )  # fmt: skip
    assert not result.reached
    assert any("a finite accuracy, here nan" in note for note in result.metrics["notes"])


@pytest.mark.parametrize(("count", "scale", "shift", "words"), [
    (1200, 1.0, 0.0, None), (16, 1.0, 0.0, None), (15, 1.0, 0.0, "only 15 samples"),
    (1, 1.0, 0.0, "only 1 sample; the removal is not made up for"),
    (1200, 0.0, 0.5, "on 1024 samples that are all alike; the removal is not made up for"),
    (1200, 1000.0, -7.0, "unlike what the dense model was trained on"),
    (1200, 1e-6, 0.0, "unlike what the dense model was trained on"),
])  # fmt: skip
def test_poor_calibration_samples_are_told(
    trained: tuple[nn.Module, TensorDataset, TensorDataset],
    count: int, scale: float, shift: float, words: str | None,
) -> None:  # fmt: skip
    model, train, val = trained
    inputs, targets = train.tensors
    poor = TensorDataset(inputs[:count] * scale + shift, targets[:count])
    listener = Heard()
    result = sc.compress(
        model, poor, val, target={"flops": 0.5}, epochs=0, listener=listener,
        recipe={"latency": None, "pruning": {"refine": 2, "branches": False}},
    )  # fmt: skip
    notes = result.metrics["notes"]
    assert listener.told == notes
    assert not notes if words is None else any(words in note for note in notes)
    if words and "made up" in words:
        # What stays keeps its weights and statistics: it is as good as the scores alone make it.
        bare = sc.compress(
            model, poor, val, target={"flops": 0.5}, epochs=0,
            recipe={"latency": None, "pruning": {
                "branches": False, "compensate": False, "recalibrate": False, "turn": False}},
        )  # fmt: skip
        ours, theirs = result.model.state_dict(), bare.model.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


class Heard(Silent):
    """A listener that keeps the remarks."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def say(self, text: str) -> None:
        self.told.append(text)


def test_a_training_that_makes_it_worse_is_left_out_and_told(
    trained: tuple[nn.Module, TensorDataset, TensorDataset],
) -> None:
    model, train, val = trained
    result = sc.compress(
        model, train, val, target={"flops": 0.7}, epochs=1, learning_rate=1.0,
        recipe={"latency": None, "pruning": {"refine": 0}},
    )  # fmt: skip
    rows = {row["step"]: row["metric"] for row in result.metrics["timeline"]}
    assert rows["finetune epoch 1"] < rows["prune 1"]
    assert rows["finetune"] == rows["prune 1"] == result.metrics["after"]["metric"]["accuracy"]
    assert any("training 'finetune' was worse" in note for note in result.metrics["notes"])

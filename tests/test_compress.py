"""The whole road in one call, on a model that is at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import secateur as sc

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

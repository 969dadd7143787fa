"""Inputs and outputs on request: what is left computes what the dense model computes there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.errors import InputError


class Segmenter(nn.Module):
    """Two outputs with a class in every channel, and one that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.out, self.aux = nn.Conv2d(8, 7, 1), nn.Conv2d(8, 7, 1)
        self.mask = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = F.relu(self.norm(self.conv(x)))
        return {"out": self.out(x), "aux": self.aux(x), "mask": self.mask(x)}


class Tower(nn.Module):
    """Columns that a norm runs over, and a second input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.fc = nn.Linear(6, 9)
        self.other = nn.Linear(4, 9)
        self.head = nn.Linear(9, 5)

    def forward(self, x: Tensor, *, y: Tensor) -> Tensor:
        return self.head(torch.relu(self.fc(self.norm(x)) + self.other(y)))


class Paired(nn.Module):
    """Answers 0 and 1 are made of one unit, as are 2 and 3."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).repeat_interleave(2, 1)


class Answer(nn.Module):
    """Scores by softmax, or only the place of the best."""

    def __init__(self, places: bool) -> None:
        super().__init__()
        self.places = places
        self.fc = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)
        return x.argmax(1) if self.places else torch.softmax(x, 1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def classifier() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 10)).double().eval()


def test_kept_classes_answer_as_before() -> None:
    model, x = classifier(), torch.randn(3, 5, dtype=torch.float64)
    pruned = sc.keep_classes(model, x, [7, 2, 3])
    assert pruned[2].out_features == 3 and model[2].out_features == 10
    torch.testing.assert_close(pruned(x), model(x)[:, [2, 3, 7]])


def test_every_output_of_the_classes_is_cut() -> None:
    model, x = Segmenter().double().eval(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    pruned, dense = sc.keep_classes(model, x, [0, 6])(x), model(x)
    for name in ("out", "aux"):
        torch.testing.assert_close(pruned[name], dense[name][:, [0, 6]])
    torch.testing.assert_close(pruned["mask"], dense["mask"])


def test_a_softmax_over_classes_runs_over_the_kept() -> None:
    model, x = Answer(False).double().eval(), torch.randn(2, 4, dtype=torch.float64)
    pruned = sc.keep_classes(model, x, [1, 4])
    torch.testing.assert_close(pruned(x), torch.softmax(model.fc(x)[:, [1, 4]], 1))


@pytest.mark.parametrize("dropped", [[0], [1, 4]])
def test_dropped_columns_are_as_good_as_zero(dropped: list[int]) -> None:
    model, x = classifier(), torch.randn(3, 5, dtype=torch.float64)
    kept = [i for i in range(5) if i not in dropped]
    pruned = sc.drop_features(model, x, dropped)
    zeroed = x.index_fill(1, torch.tensor(dropped), 0)
    torch.testing.assert_close(pruned(x[:, kept]), model(zeroed))


def test_a_norm_over_columns_runs_over_the_kept_and_arguments_go_by_name() -> None:
    model = Tower().double().eval()
    x, y = torch.randn(2, 6, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    inputs: Any = ((x,), {"y": y})
    pruned = sc.drop_features(model, inputs, [2, 3])
    kept = [0, 1, 4, 5]
    hidden = F.layer_norm(x[:, kept], (4,), model.norm.weight[kept], model.norm.bias[kept])
    right = F.linear(hidden, model.fc.weight[:, kept], model.fc.bias)
    torch.testing.assert_close(pruned(x[:, kept], y=y),
                               model.head(torch.relu(right + model.other(y))))  # fmt: skip
    pruned = sc.drop_features(model, inputs, [0], argument="y")
    zeroed = y.index_fill(1, torch.tensor([0]), 0)
    torch.testing.assert_close(pruned(x, y=y[:, 1:]), model(x, y=zeroed))


def test_image_channels() -> None:
    model, x = Segmenter().double().eval(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    pruned = sc.drop_features(model, x, [1])
    right = model(x.index_fill(1, torch.tensor([1]), 0))
    torch.testing.assert_close(pruned(x[:, [0, 2]])["out"], right["out"])


def test_a_result_can_be_saved_and_loaded(tmp_path: Any) -> None:
    model, x = classifier(), torch.randn(3, 5, dtype=torch.float64)
    pruned = sc.keep_classes(model, x, [1, 2])
    sc.save(pruned, tmp_path / "kept")
    again = sc.load(tmp_path / "kept", classifier)
    assert torch.equal(again(x), pruned(x))


@pytest.mark.parametrize("call, words", [
    (lambda m, x: sc.keep_classes(m, x, [10]), "0 to 9"),
    (lambda m, x: sc.keep_classes(m, x, []), "none"),
    (lambda m, x: sc.keep_classes(Paired().double(), x, [0, 2, 3]), "along with the rest"),
    (lambda m, x: sc.drop_features(m, x, range(5)), "keep one"),
    (lambda m, x: sc.drop_features(m, x, [0], argument="z"), "no tensor argument 'z'"),
    (lambda m, x: sc.drop_features(m, x, [0], dim=0), "after the batch"),
    (lambda m, x: sc.keep_classes(Answer(True), x[:, :4].float(), [0]), "cannot leave|0 to"),
])  # fmt: skip
def test_bad_wishes_are_refused_in_words(call: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call(classifier(), torch.randn(2, 5, dtype=torch.float64))

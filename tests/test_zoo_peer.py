"""The checker of Torch-Pruning's results: it passes what is right and names what is wrong."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torch_pruning")

from benchmarks import zoo_peer_checking as checking
from benchmarks import zoo_peer_hints as hints_of
from benchmarks import zoo_peer_reference as reference
from benchmarks.zoo_peer_page import text

from oracle import randomise


class Attention(nn.Module):
    """As timm writes it: one packed layer, sizes kept as numbers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        packed = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, self.head_dim)
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.GroupNorm(2, 12),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip


def attending() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), Attention(16, 2), nn.Linear(16, 5))


MODELS = {
    "convolutions": (convolutions, torch.randn(2, 3, 9, 9, dtype=torch.float64)),
    "attending": (attending, torch.randn(2, 7, 6, dtype=torch.float64)),
}


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(name: str, seed: int) -> tuple[nn.Module, Any]:
        make, inputs = MODELS[name]
        return randomise(make(), seed).eval(), inputs

    monkeypatch.setattr(checking, "build", build)


@pytest.mark.usefixtures("zoo")
def test_a_plain_net_passes() -> None:
    row = checking.check("convolutions", "nothing")
    assert row["verdict"] == "adapted", row
    assert not row["attention"] and not row["hints"] and row["ignored"] == ["8"]
    assert row["left"] < 0.5 and row["of_effect"] < 1e-12


@pytest.mark.usefixtures("zoo")
def test_what_stops_an_attention_is_told_in_words() -> None:
    assert checking.check("attending", "nothing")["cause"] == "forward"
    told = checking.check("attending", "hints")
    assert told["cause"] == "scale of attention", told
    assert told["attention"] and told["hints"] == 1


@pytest.mark.usefixtures("zoo")
def test_what_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def forever(*_: Any) -> None:
        while True:
            pass

    monkeypatch.setattr(checking, "LIMIT", 1)
    monkeypatch.setattr(checking, "forward", forever)
    assert checking.check("convolutions", "nothing")["cause"] == "no end"


def test_the_cut_is_read_from_the_gradients() -> None:
    model = nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6))
    before = reference.shapes(model)
    pruned = copy.deepcopy(model)
    reference.number(pruned)
    conv, norm = pruned[0], pruned[1]
    for module, name, index in (
        (conv, "weight", np.ix_([0, 2, 5], [1, 3])), (conv, "bias", [0, 2, 5]),
        (norm, "weight", [0, 2, 5]), (norm, "bias", [0, 2, 5]),
    ):  # fmt: skip
        old = getattr(module, name)
        new = nn.Parameter(old.detach()[index])
        new.grad = old.grad[index]
        setattr(module, name, new)
    norm.running_mean, norm.running_var = norm.running_mean[:3], norm.running_var[:3]
    gone, mixed = reference.removed(before, pruned)
    assert not mixed
    assert {key: value.tolist() for key, value in gone.items()} == {
        ("0.weight", 0): [1, 3, 4], ("0.weight", 1): [0, 2], ("0.bias", 0): [1, 3, 4],
        ("1.weight", 0): [1, 3, 4], ("1.bias", 0): [1, 3, 4],
        ("1.running_mean", 0): [1, 3, 4], ("1.running_var", 0): [1, 3, 4],
    }  # fmt: skip


def test_attention_is_found_by_its_softmax() -> None:
    for name, (make, inputs) in MODELS.items():
        run = hints_of.dense_run(make().double(), inputs)
        assert run.attention == (name == "attending")
        assert len(run.makers) == 1


def test_the_page_counts_both_sides() -> None:
    time = {"graph": 1.0, "step": 1.0}
    right = {"verdict": "exact", "attention": False, "hints": 0, "left": 0.25, "seconds": time,
             "processor": time}  # fmt: skip
    scaled = {"verdict": "failed", "cause": "scale of attention", "why": "equal once", "hints": 2,
              "attention": True, "left": 0.3, "seconds": {}, "processor": {}}  # fmt: skip
    where = {"torch": "2", "python": "3", "cpu": "one"}
    rows = [
        {"cell": {"model": model, "told": told, "torch_pruning": "1"}, "result": result,
         "environment": where}
        for model, told, result in (
            ("timm:a", "nothing", right), ("timm:b", "nothing", scaled),
            ("timm:b", "hints", scaled), ("timm:c", "nothing", right),
        )
    ]  # fmt: skip
    passed = {"verdict": "adapted", "left": 0.2, "seconds": {"trace": 3.0, "apply": 1.0}}
    ours = {"timm:a": {"verdict": "failed", "why": "a bar was missed"}, "timm:b": passed}
    page = text(rows, ours)
    assert "2 models were checked on both sides (1 more on its side alone" in page
    assert "| **all** | 2 | 1 (50%) | 1 (50%) | 2 (100%) | 1 (50%) |" in page
    assert "It passes 1 that Secateur does not" in page

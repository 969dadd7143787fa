"""Models that return key-value caches: heads stay free, and callers see what they saw before."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import secateur as sc
from secateur.surgery.applying import origin_of


class CacheLayerMixin:
    """As in transformers: tensors and a few plain attributes."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.is_initialized, self.dtype, self.device = True, keys.dtype, keys.device


class Cache:
    """As in transformers: a list of layers and a class."""

    def __init__(self, layers: list[CacheLayerMixin]) -> None:
        self.layers = layers
        self.layer_class_to_replicate = CacheLayerMixin


class Decoder(nn.Module):
    """One head of attention that returns its keys and values for the next call."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(5, 8), nn.Linear(5, 8), nn.Linear(5, 6)
        self.o = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> dict[str, Any]:
        q, k, v = self.q(x), self.k(x), self.v(x)
        y = torch.softmax(q @ k.transpose(1, 2) * 0.3, -1) @ v
        return {"logits": self.o(y), "cache": Cache([CacheLayerMixin(k, v)])}


@pytest.fixture(autouse=True)
def transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for the library, as it is after its import."""
    module = ModuleType("transformers.cache_utils")
    vars(module).update(Cache=Cache, CacheLayerMixin=CacheLayerMixin)
    monkeypatch.setitem(sys.modules, "transformers.cache_utils", module)


@pytest.mark.parametrize("method", ["module", "graph"])
def test_the_widths_of_a_cache_may_leave(method: Any) -> None:
    torch.manual_seed(0)
    model, x = Decoder().eval(), torch.randn(2, 4, 5)
    structure = sc.trace(model, x)
    assert {group.name: group.size for group in structure.groups} == {"q": 8, "v": 6}
    plan = sc.PruningPlan({"q": [0, 5, 6], "v": [1]})
    pruned = sc.apply(model, plan, x, method=method, structure=structure)
    assert origin_of(pruned).kind == method
    assert sc.verify(model, pruned, plan, x, structure=structure).ok
    layer = pruned(x)["cache"].layers[0]
    assert layer.keys.shape == (2, 4, 5) and layer.values.shape == (2, 4, 5)
    dense = model(x)["cache"].layers[0]
    assert torch.allclose(layer.values, dense.values[..., [0, 2, 3, 4, 5]], atol=1e-6)
    assert layer.is_initialized and layer.device == dense.device and layer.dtype == dense.dtype


def test_a_wrong_cache_is_not_verified() -> None:
    torch.manual_seed(0)
    model, x = Decoder().eval(), torch.randn(2, 4, 5)
    structure = sc.trace(model, x)
    plan = sc.PruningPlan({"v": [1]})
    pruned = sc.apply(model, plan, x, structure=structure)
    assert sc.verify(model, pruned, plan, x, structure=structure).ok
    with torch.no_grad():  # values grow and the output layer makes up for it
        pruned.v.weight.mul_(2)
        pruned.v.bias.mul_(2)
        pruned.o.weight.mul_(0.5)
    assert not sc.verify(model, pruned, plan, x, structure=structure).ok


def test_callers_see_what_they_saw_before() -> None:
    model, x = Decoder().eval(), torch.randn(2, 4, 5)
    before = len(pytree.tree_leaves(model(x)))
    pruned = sc.apply(model, sc.PruningPlan({"v": [1]}), x, method="graph")
    assert len(pytree.tree_leaves(model(x))) == len(pytree.tree_leaves(pruned(x))) == before
    assert Cache not in pytree.SUPPORTED_NODES


def test_a_saved_graph_gives_the_cache_back(tmp_path: Any) -> None:
    model, x = Decoder().eval(), torch.randn(2, 4, 5)
    pruned = sc.apply(model, sc.PruningPlan({"v": [1], "q": [0]}), x, method="graph").eval()
    sc.save(pruned, tmp_path / "saved")
    again = sc.load(tmp_path / "saved").eval()
    one, two = pruned(x), again(x)
    assert torch.equal(one["logits"], two["logits"])
    assert torch.equal(one["cache"].layers[0].keys, two["cache"].layers[0].keys)
    assert two["cache"].layers[0].dtype == torch.float32


class Translator(nn.Module):
    """An encoder, and a decoder that returns the encoder's state, with or without a cache."""

    def __init__(self, cached: bool) -> None:
        super().__init__()
        self.encode, self.decoder = nn.Linear(4, 5), Decoder()
        self.cached = cached

    def forward(self, x: Tensor) -> dict[str, Any]:
        state = torch.relu(self.encode(x))
        answer = self.decoder(state)
        if not self.cached:
            del answer["cache"]
        return answer | {"encoder_last_hidden_state": state}


def test_what_an_encoder_hands_on_beside_a_cache_may_shrink() -> None:
    torch.manual_seed(0)
    model, x = Translator(cached=True).eval(), torch.randn(2, 4, 4)
    structure = sc.trace(model, x)
    assert {g.name: g.size for g in structure.groups} == {
        "encode": 5, "decoder.q": 8, "decoder.v": 6,
    }  # fmt: skip
    plan = sc.PruningPlan({"encode": [0, 3], "decoder.v": [1]})
    pruned = sc.apply(model, plan, x, structure=structure)
    assert pruned(x)["encoder_last_hidden_state"].shape == (2, 4, 3)
    assert sc.verify(model, pruned, plan, x, structure=structure).ok


def test_without_a_cache_it_is_an_answer_and_stays() -> None:
    structure = sc.trace(Translator(cached=False).eval(), torch.randn(2, 4, 4))
    assert "encode" not in {group.name for group in structure.groups}
    assert "it is an output of the model" in {f.reason for f in structure.frozen}

"""2:4 weights are what PyTorch's semi-structured format holds, and nothing else is converted."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.masking import n_of_m
from secateur.masking.semi_structured import follows, to_semi_structured, why_not


def cut(rows: int, columns: int, dtype=torch.half) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(columns, rows).to(dtype)
    with torch.no_grad():
        layer.weight[~n_of_m(layer.weight.abs(), 2, 4)] = 0
    return layer


def test_the_pattern_is_seen_on_every_row():
    weight = cut(8, 16).weight.detach().clone()
    assert follows(weight, 2, 4) and not follows(weight, 1, 4) and not follows(weight[:, :6], 2, 4)
    place = int((weight[5] == 0).nonzero()[3])
    weight[5, place] = 1.0
    assert not follows(weight, 2, 4)
    kernel = torch.zeros(2, 4, 3, 3)
    kernel[:, :2] = 1
    assert follows(kernel, 2, 4) and not follows(kernel.transpose(0, 1), 1, 2, dim=1)


def test_pytorchs_own_conversion_gives_the_weights_back():
    """Its code for CUTLASS runs without a GPU; of a weight without the pattern it loses some."""
    from torch.sparse import _semi_structured_conversions as conversions

    def there_and_back(weight):
        packed, meta = conversions.sparse_semi_structured_from_dense_cutlass(weight)
        return conversions.sparse_semi_structured_to_dense_cutlass(packed, meta)

    weight = cut(64, 128).weight.detach()
    assert torch.equal(there_and_back(weight), weight)
    assert not torch.equal(there_and_back(weight + 1), weight + 1)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (nn.Linear(128, 64), "more than two of four"),
        (cut(64, 120), r"\[64, 120\]; outputs are to be a multiple of 32"),
        (cut(40, 128), "a multiple of 32"),
        (cut(64, 128, torch.float), "it is torch.float32; take model.half"),
        (cut(64, 128), "not on an NVIDIA GPU; take model.cuda"),
    ],
)
def test_what_stays_dense_is_said(layer, said):
    with pytest.raises(sc.InputError, match=said):
        to_semi_structured(nn.Sequential(layer, nn.ReLU()))
    assert why_not(layer.weight)


def test_a_model_without_linear_layers_is_refused():
    with pytest.raises(sc.InputError, match="no linear layers"):
        to_semi_structured(nn.Conv2d(4, 4, 3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_answers_stay_on_a_gpu():
    model = nn.Sequential(cut(128, 64), nn.ReLU(), cut(64, 128), nn.Linear(64, 5).half()).cuda()
    sparse = copy.deepcopy(model)
    found = to_semi_structured(sparse)
    assert found.converted == ("0.weight", "2.weight") and set(found.dense) == {"3.weight"}
    x = torch.randn(32, 64, device="cuda", dtype=torch.half)
    with torch.no_grad():
        assert torch.allclose(model(x), sparse(x), rtol=1e-2, atol=1e-2)

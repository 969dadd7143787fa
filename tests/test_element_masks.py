"""Masks of whole models: layouts, scopes, files, and what is said where it cannot be."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.criteria import CRITERIA
from secateur.masking.densities import erk_counts
from secateur.masking.storing import apply_masks, load_masks, save_masks
from secateur.masks import element_masks
from secateur.protocols import FROM_NOTHING
from secateur.repair.sparsifying import cuttable
from secateur.training.statistics import GIVEN, KNOWN
from zoo import ZOO


class Magnitude:
    """|w|, with nothing else of the criteria."""

    needs: frozenset[str] = frozenset()

    def elements(self, tensor, statistics):
        return statistics.tensors[tensor].abs().double()


class Units:
    """Scores units alone."""

    needs: frozenset[str] = frozenset()

    def __call__(self, group, statistics):
        return torch.ones(group.size)


class Flat(Magnitude):
    """Of a wrong shape."""

    def elements(self, tensor, statistics):
        return super().elements(tensor, statistics).reshape(-1)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 2, stride=2), nn.ReLU(),
        nn.Conv2d(4, 8, 3, padding=1, groups=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


@cache
def traced() -> sc.Structure:
    return sc.trace(net(), torch.zeros(2, 2, 6, 6))


def made(model: nn.Module, *words, **more):
    return element_masks(model, traced(), Magnitude(), *words, **more)


def sizes(masks) -> dict[str, tuple[int, int]]:
    return {name: (int((~mask).sum()), mask.numel()) for name, mask in masks.items()}


def test_one_ranking_over_all_weights_and_the_model_stays_as_it_is():
    model = net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = made(model, 0.7)
    weights = {n: p for n, p in model.named_parameters() if p.dim() > 1}
    assert set(found.masks) == set(weights) and not found.whole
    every = torch.cat([p.detach().abs().reshape(-1) for p in weights.values()])
    cut = every.sort().values[round(0.7 * every.numel()) - 1]
    for name, weight in weights.items():
        assert torch.equal(found.masks[name], weight.abs() > cut)
    assert found.zeros == pytest.approx(0.7, abs=1 / every.numel())
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_scopes_and_rules():
    model = net()
    local = sizes(made(model, 0.5, scope="local").masks)
    assert all(gone == round(0.5 * size) for gone, size in local.values())
    spread = sizes(made(model, 0.5, scope="erk").masks)
    assert sum(gone for gone, _ in spread.values()) == round(
        0.5 * sum(s for _, s in spread.values())
    )
    assert spread["8.weight"][0] == 0  # the smallest layer is full
    theta = made(model, threshold=0.05).masks
    assert all(torch.equal(m, model.get_parameter(n).abs() > 0.05) for n, m in theta.items())
    assert sizes(made(model, energy=1.0).masks) == {n: (0, s) for n, (_, s) in local.items()}
    assert sizes(made(model, natural_break=True).masks) == sizes(made(model, energy=1.0).masks)


@pytest.mark.parametrize("granularity", ["row", "column", "kernel", "channel", "tap"])
def test_cells_of_every_layout(granularity):
    """Of a transposed convolution the first dimension meets the inputs."""
    model = net()
    found = made(model, 0.5, granularity=granularity)
    dims = {"row": (0,), "column": (1, 2, 3), "channel": (1,), "kernel": (0, 1), "tap": (2, 3)}
    for name, mask in found.masks.items():
        assert mask.shape == model.get_parameter(name).shape
        turned = mask.transpose(0, 1) if name == "2.weight" else mask
        rest = [d for d in range(turned.dim()) if d not in dims[granularity]]
        if rest:
            assert torch.equal(turned.float().amin(rest), turned.float().amax(rest))
    assert 0 < found.zeros < 1
    if granularity == "tap":
        assert set(found.whole) == {"8.weight"} and "no taps" in found.whole["8.weight"]
    else:
        assert not found.whole


def test_what_a_block_or_a_pattern_does_not_divide_stays_whole():
    model = net()
    blocks = made(model, 0.5, granularity="block", block=(4, 2))
    assert set(blocks.whole) == {"8.weight"} and "3 outputs" in blocks.whole["8.weight"]
    four = made(model, pattern="2:4")
    assert set(four.whole) == {"0.weight", "4.weight"}
    mask = four.masks["2.weight"]  # [inputs, outputs, places]: neighbours are along the first
    assert (mask.unflatten(0, (-1, 4)).sum(1) == 2).all()
    assert (four.masks["8.weight"].unflatten(1, (-1, 4)).sum(2) == 2).all()


@pytest.mark.parametrize("name", ["transformer", "lstm", "shared_twice", "matmul_addmm"])
def test_nets_of_the_zoo(name):
    entry = ZOO[name]
    torch.manual_seed(0)
    model = entry.build()
    structure = sc.trace(model, entry.inputs())
    found = element_masks(model, structure, Magnitude(), 0.5)
    assert set(found.masks) == set(cuttable(structure))
    parameters = dict(model.named_parameters())
    assert all(mask.shape == parameters[n].shape for n, mask in found.masks.items())
    total = sum(mask.numel() for mask in found.masks.values())
    assert sum(int((~mask).sum()) for mask in found.masks.values()) == round(0.5 * total)


def test_what_left_earlier_leaves_first():
    model = net()
    first = made(model, 0.3, granularity="kernel").masks
    out = {name: int((~mask).sum()) for name, mask in first.items()}
    sizes = {name: mask.numel() for name, mask in first.items()}
    spread = erk_counts({name: tuple(mask.shape) for name, mask in first.items()}, 0.6)
    for scope, wanted in (
        ("global", round(0.6 * sum(sizes.values()))),
        ("local", sum(max(round(0.6 * size), out[name]) for name, size in sizes.items())),
        ("erk", sum(max(count, out[name]) for name, count in spread.items())),
    ):
        later = made(model, 0.6, scope=scope, inside=first).masks
        assert all(not bool((later[name] & ~mask).any()) for name, mask in first.items())
        assert sum(int((~mask).sum()) for mask in later.values()) == wanted, scope
    same = made(model, 0.1, granularity="kernel", inside=first).masks
    assert all(torch.equal(same[name], mask) for name, mask in first.items())
    most = made(model, 1.0, granularity="kernel", inside=first, least=3).masks
    for name, mask in most.items():
        dim = 1 if name == "2.weight" else 0
        rows, before = (m.movedim(dim, 0).flatten(1).any(1).sum() for m in (mask, first[name]))
        assert rows == min(3, before)


ELEMENTWISE = [n for n in CRITERIA.names() if hasattr(CRITERIA.get(n), "elements")]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_every_criterion_of_elements_ranks_a_whole_model(name):
    if not CRITERIA.get(name)().needs <= KNOWN - GIVEN:
        pytest.skip("its statistics come from a training")
    model = net().eval()
    images = torch.randn(12, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    rows = [(images[:6], torch.arange(6) % 3), (images[6:], torch.arange(6) % 3)]
    structure = traced()
    found = element_masks(model, structure, name, 0.5, data=rows)
    total = sum(mask.numel() for mask in found.masks.values())
    assert sum(int((~mask).sum()) for mask in found.masks.values()) == round(0.5 * total)
    if CRITERIA.get(name)().needs - FROM_NOTHING:
        with pytest.raises(sc.InputError, match="needs data for its"):
            element_masks(model, structure, name, 0.5)


def test_masks_are_kept_in_a_file_and_put_on_a_model(tmp_path):
    model, other = net(), net()
    found = made(model, 0.6)
    apply_masks(model, found.masks)
    for name, mask in found.masks.items():
        assert torch.equal(model.get_parameter(name) != 0, mask)
        kept = other.get_parameter(name)[mask]
        assert torch.equal(model.get_parameter(name)[mask], kept)
    save_masks(found.masks, tmp_path / "masks.safetensors")
    again = load_masks(tmp_path / "masks.safetensors")
    assert again.keys() == found.masks.keys()
    assert all(torch.equal(again[name], mask) for name, mask in found.masks.items())
    apply_masks(other, again)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )


def test_a_file_of_something_else_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(3)}, tmp_path / "weights.safetensors")
    (tmp_path / "text").write_text("masks")
    for name, said in (("weights.safetensors", "masks are bool"), ("text", "not a whole"),
                       ("none", "there is no file")):  # fmt: skip
        with pytest.raises(sc.InputError, match=said):
            load_masks(tmp_path / name)
    model = net()
    before = [p.clone() for p in model.parameters()]
    good = torch.zeros_like(model.get_parameter("0.weight"), dtype=torch.bool)
    for masks, said in (
        ({"0.weight": good, "nil": good}, "no parameter 'nil'"),
        ({"0.weight": good, "8.weight": good}, r"'8.weight' has shape \[8, 2, 3, 3\]"),
    ):
        with pytest.raises(sc.InputError, match=said):
            apply_masks(model, masks)
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"criterion": Units()}, "'Units' scores units, and no single weights"),
        ({"criterion": Flat()}, r"gave scores of shape \[144\]"),
        ({"zeros": 1.2}, "give 0 to 1"),
        ({"zeros": 0.5, "energy": 0.9}, "give one"),
        ({"pattern": "4:2"}, "N:M with N < M"),
        ({"pattern": "2:4", "zeros": 0.5}, "leave the other rules out"),
        ({"pattern": "2:4", "granularity": "kernel"}, "leave the granularity 'kernel' out"),
        ({"granularity": "kernle"}, "did you mean 'kernel'"),
        (
            {"granularity": "block", "block": (5, 7)},
            "no weight of the model can be cut.*not a mult",
        ),
        ({"scope": "layer"}, "scope of masks"),
        ({"keep": {"0.weight", "2.weight", "4.weight", "8.weight"}}, "or all are kept"),
    ],
)
def test_what_makes_no_sense_is_said(arguments, said):
    model = net()
    with pytest.raises(sc.InputError, match=said):
        element_masks(model, traced(), **({"criterion": Magnitude()} | arguments))

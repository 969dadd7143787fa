"""Sparse maps: patterns hold, updates are least squares, methods coincide where they must."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import secateur as sc
from oracle import call, leaves, randomise
from secateur.errors import InputError
from secateur.repair.readers import readers
from secateur.repair.sparse import METHODS, Pattern, by_place, sparse
from secateur.repair.sparsifying import sparsify
from secateur.surgery.embedding import with_tensors
from secateur.surgery.tensors import named_tensors
from zoo import ZOO

HALF, TWO_OF_FOUR = Pattern(0.5), Pattern(kept=2, of=4)


def drawn(seed: int, outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
    """A map, and correlated inputs [inputs, samples]."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(inputs, inputs, generator=generator, dtype=torch.float64)
    x = (torch.eye(inputs, dtype=torch.float64) + 0.7 * mixing / inputs**0.5) @ torch.randn(
        inputs, 400, generator=generator, dtype=torch.float64
    )
    return torch.randn(outputs, inputs, generator=generator, dtype=torch.float64), x


def error(weight: Tensor, new: Tensor, x: Tensor) -> float:
    return float(((weight - new) @ x).square().sum() / (weight @ x).square().sum())


@given(
    seed=st.integers(0, 99),
    outputs=st.integers(1, 6),
    inputs=st.sampled_from([4, 12, 140, 300]),
    method=st.sampled_from(METHODS),
)
def test_patterns_hold(seed, outputs, inputs, method):
    weight, x = drawn(seed, outputs, inputs)
    moment = x @ x.T / x.shape[1]
    half = sparse(weight, moment, HALF, method)
    assert abs(int((half != 0).sum()) - outputs * inputs / 2) <= 3 * outputs
    four = sparse(weight, moment, TWO_OF_FOUR, method)
    assert ((four.unflatten(1, (-1, 4)) != 0).sum(2) <= 2).all()
    assert (four != 0).sum() == outputs * inputs // 2


@pytest.mark.parametrize("pattern", [HALF, TWO_OF_FOUR, Pattern(0.3), Pattern(kept=1, of=4)])
def test_the_order_of_the_methods(pattern):
    """On average over maps with correlated inputs; each single one is allowed to differ."""
    lost = {method: [] for method in METHODS}
    for seed in range(12):
        weight, x = drawn(seed, 16, 64)
        x = x * torch.rand(64, 1, generator=torch.Generator().manual_seed(seed)).exp() ** 2
        for method in METHODS:
            lost[method].append(error(weight, sparse(weight, x @ x.T / 400, pattern, method), x))
    means = {method: float(np.mean(lost[method])) for method in METHODS}
    assert means["obs"] < means["wanda"] < means["magnitude"]
    assert means["obs"] < means["wanda-layer"] < means["magnitude"]


def test_beside_the_best_weights_on_the_same_pattern():
    """Going through the inputs once costs little beside least squares on what stayed."""
    weight, x = drawn(0, 8, 32)
    new = sparse(weight, x @ x.T / 400, HALF)
    best = torch.zeros_like(new)
    for row in range(8):
        kept = new[row].nonzero()[:, 0]
        answer = torch.linalg.lstsq(x[kept].T, (weight[row] @ x)[:, None]).solution
        best[row, kept] = answer[:, 0]
    assert error(weight, best, x) <= error(weight, new, x) <= 1.35 * error(weight, best, x)


def test_orthogonal_inputs_are_wanda_and_equal_ones_magnitude():
    weight, _ = drawn(1, 5, 16)
    scales = torch.rand(16, dtype=torch.float64) + 0.1
    diagonal = torch.diag(scales)
    for pattern in (TWO_OF_FOUR,):
        obs, wanda = (sparse(weight, diagonal, pattern, m) for m in ("obs", "wanda"))
        # the damping adds the same to all scales, which may turn a close pair round
        assert float(((obs != 0) == (wanda != 0)).double().mean()) > 0.95
        same = torch.eye(16, dtype=torch.float64)
        assert torch.equal(
            sparse(weight, same, pattern, "obs"), sparse(weight, same, pattern, "magnitude")
        )
        assert torch.equal(
            sparse(weight, same, pattern, "wanda"), sparse(weight, same, pattern, "magnitude")
        )


def test_dead_inputs_leave_for_nothing():
    weight, x = drawn(2, 4, 8)
    x[[1, 5]] = 0
    new = sparse(weight, x @ x.T / 400, Pattern(0.75))
    assert (new[:, [1, 5]] == 0).all()
    assert error(weight, new, x) < 1e-3


def test_fewer_samples_than_inputs_stay_finite():
    weight, x = drawn(3, 4, 64)
    for pattern in (HALF, TWO_OF_FOUR):
        assert torch.isfinite(sparse(weight, x[:, :3] @ x[:, :3].T / 3, pattern)).all()


def test_neighbours_are_channels_at_one_place():
    assert by_place(6, 3).tolist() == [0, 3, 1, 4, 2, 5]
    assert by_place(4, 1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pattern(1.0), "give 0 to below 1"),
        (lambda: Pattern(kept=4, of=4), "4 of 4 weights cannot stay"),
        (lambda: sparse(torch.ones(2, 6), torch.eye(6), TWO_OF_FOUR), "not a multiple of 4"),
        (lambda: sparse(torch.ones(2, 4), torch.eye(4), HALF, "no"), "known are obs, wanda"),
    ],
)
def test_what_cannot_be_is_said(make, message):
    with pytest.raises(sc.InputError, match=message):
        make()


@pytest.mark.parametrize("net", ["conv_bn_relu", "transformer", "resnext", "generator"])
@pytest.mark.parametrize("pattern", [HALF, TWO_OF_FOUR], ids=["half", "two of four"])
def test_a_whole_network_is_cut(net, pattern):
    entry = ZOO[net]
    torch.manual_seed(0)
    model = randomise(entry.build(), seed=0).float().eval()
    inputs = [entry.inputs() for _ in range(3)]
    structure = sc.trace(model, inputs[0])
    found = sparsify(model, structure, inputs, pattern)
    own = {name: tensor.detach() for name, tensor in named_tensors(model).items()}
    changed = dict(found.compensation.tensors)
    new = with_tensors(copy.deepcopy(model), structure, own | changed)
    cut = [name for name in found.zeros if name not in found.whole]
    for name in cut:
        assert 0.4 <= found.zeros[name] <= 0.75, name
    assert cut or found.whole
    for batch, answers in zip(inputs, found.compensation.answers, strict=True):
        for seen, said in zip(leaves(call(new, batch)), answers, strict=True):
            assert float((seen - said).abs().max()) <= 1e-3 * float(said.abs().max())


def test_what_is_left_out_stays_bit_for_bit():
    entry = ZOO["conv_bn_relu"]
    torch.manual_seed(0)
    model = entry.build().eval()
    x = entry.inputs()
    structure = sc.trace(model, x)
    names = [reader.weight for reader in readers(structure)]
    found = sparsify(model, structure, [x], method="magnitude", leave=names[:1])
    first = found.compensation.tensors[names[0]]
    assert torch.equal(first, dict(model.named_parameters())[names[0]].detach())
    with pytest.raises(sc.InputError, match="'nil' is not the weight of a layer"):
        sparsify(model, structure, [x], leave=["nil"])


@pytest.mark.parametrize("method", METHODS)
def test_a_bias_takes_up_the_mean_of_what_left(method):
    """Over the samples that were learnt from, the answers' mean is the dense one."""
    torch.manual_seed(0)
    model = torch.nn.Linear(12, 5)
    x = torch.randn(64, 12) + 3
    found = sparsify(model, sc.trace(model, x), [x], HALF, method)
    new = found.compensation.tensors
    answers = torch.nn.functional.linear(x, new["weight"], new["bias"])
    assert int((new["weight"] == 0).sum()) == 30
    assert torch.allclose(answers.mean(0), model(x).mean(0), atol=1e-5)
    assert not torch.allclose(
        model(x).mean(0), (x @ new["weight"].T + model.bias).mean(0), atol=0.1
    )


@pytest.mark.parametrize("foreign", [True, False])
def test_foreign_inputs_change_only_what_the_cut_changes(foreign):
    """Nothing leaves here: statistics stay where inputs are foreign, and are theirs otherwise."""
    entry = ZOO["conv_bn_relu"]
    torch.manual_seed(0)
    model = randomise(entry.build(), seed=0).float().eval()
    noise = tuple(5 * torch.randn_like(x) for x in entry.inputs())
    structure = sc.trace(model, noise)
    found = sparsify(model, structure, [noise], Pattern(0.9999), "magnitude", foreign=foreign)
    own = {name: tensor.detach() for name, tensor in named_tensors(model).items()}
    same = [
        torch.allclose(tensor, own[name], atol=1e-4)
        for name, tensor in found.compensation.tensors.items()
    ]
    assert all(same) if foreign else not all(same)


@pytest.mark.parametrize("method", ["magnitude", "random", "sampled"])
@pytest.mark.parametrize("shape", [(8, 12), (7, 10), (1, 5)])
def test_blocks_stay_or_leave_whole(method, shape):
    weight, x = drawn(3, *shape)
    pattern = Pattern(0.5, block=(4, 2))
    new = sparse(weight, x @ x.T, pattern, method)
    blocks = [
        (slice(r, r + 4), slice(c, c + 2))
        for r in range(0, shape[0], 4)
        for c in range(0, shape[1], 2)
    ]
    kept = [bool((new[block] != 0).any()) for block in blocks]
    for block, stays in zip(blocks, kept, strict=True):
        assert torch.equal(new[block], weight[block] if stays else torch.zeros_like(weight[block]))
    sizes = torch.tensor([weight[block].numel() for block in blocks])
    left = [not stays for stays in kept]
    gone, half = int(sizes[left].sum()), weight.numel() / 2
    assert abs(gone - half) <= sizes.max() / 2  # no other number of blocks is nearer
    if method == "magnitude":
        means = torch.tensor([float(weight[block].square().mean()) for block in blocks])
        assert means[left].max() <= means[kept].min()


def test_blocks_are_refused_where_they_make_no_sense():
    weight, x = drawn(0, 4, 8)
    for method in ("obs", "wanda", "wanda-layer"):
        with pytest.raises(InputError, match="take magnitude"):
            sparse(weight, x @ x.T, Pattern(0.5, block=(2, 2)), method)
    with pytest.raises(InputError, match="no n of m"):
        Pattern(kept=2, of=4, block=(2, 2))
    with pytest.raises(InputError, match="0 by 1"):
        Pattern(0.5, block=(0, 1))


def test_sampling_keeps_weights_with_chances_like_their_size():
    """One of three stays: its chance is its share of the sum; with two, that of the pairs."""
    weight = torch.tensor([[1.0, -2.0, 5.0]], dtype=torch.float64)
    moment = torch.eye(3, dtype=torch.float64)
    trials = 4000
    for count, share in ((1, 1 / 3), (2, 2 / 3)):
        kept = torch.zeros(3)
        for seed in range(trials):
            kept += sparse(weight, moment, Pattern(share), "sampled", seed)[0] != 0
        p = weight.abs()[0] / weight.abs().sum()
        if count == 1:
            expected = p
        else:  # first or second without putting back
            expected = torch.tensor([
                float(p[i] + sum(p[j] * p[i] / (1 - p[j]) for j in range(3) if j != i))
                for i in range(3)
            ])  # fmt: skip
        assert torch.allclose(kept / trials, expected.float(), atol=0.03)
    even = torch.zeros(3)
    for seed in range(trials):
        even += sparse(weight, moment, Pattern(1 / 3), "random", seed)[0] != 0
    assert torch.allclose(even / trials, torch.full((3,), 1 / 3), atol=0.03)


def test_wanda_within_a_layer_ranks_all_of_its_weights_together():
    """One row of large weights keeps more than half, where half of each row would stay."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    weight[0] *= 100
    norms = torch.rand(8, generator=generator, dtype=torch.float64) + 0.1
    kept = sparse(weight, torch.diag(norms.square()), Pattern(0.5), "wanda-layer") != 0
    sizes = (weight.abs() * norms).flatten()
    assert set(kept.flatten().nonzero().flatten().tolist()) == set(sizes.topk(16).indices.tolist())
    assert kept[0].all()
    rows = sparse(weight, torch.diag(norms.square()), Pattern(0.5), "wanda") != 0
    assert (rows.sum(1) == 4).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_layers_of_many_groups_lose_their_share_and_never_all(method, share):
    """Nine weights of each filter, and no share of nine is a whole number."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(10, 1, 9, generator=generator, dtype=torch.float64)
    x = torch.randn(10, 9, 50, generator=generator, dtype=torch.float64)
    moments = x @ x.mT / 50
    new = sparse(weight, moments, Pattern(share), method)
    assert int((new == 0).sum()) == round((1 - share) * 90)
    if method == "magnitude":
        largest = weight.abs().flatten().topk(90 - round((1 - share) * 90)).indices
        assert set(new.flatten().nonzero()[:, 0].tolist()) == set(largest.tolist())
    if method == "wanda":
        counts = (new != 0).sum(2)
        assert counts.max() - counts.min() <= 1
    alone = sparse(weight[:1], moments[:1], Pattern(0.01), method)
    assert int((alone != 0).sum()) == 1


def test_groups_are_solved_as_each_of_them_alone():
    """With a pattern that leaves no choice between groups, all together are one after another."""
    pairs = [drawn(seed, 3, 140) for seed in range(4)]
    weight = torch.stack([w for w, _ in pairs])
    moments = torch.stack([x @ x.T / 400 for _, x in pairs])
    together = sparse(weight, moments, TWO_OF_FOUR)
    for group in range(4):
        alone = sparse(weight[group], moments[group], TWO_OF_FOUR)
        assert torch.allclose(together[group], alone, rtol=1e-9, atol=1e-12)


def test_rows_whose_next_weight_is_smallest_lose_one_more():
    weight, x = drawn(4, 7, 9)
    moment = x @ x.T / 400
    scores = weight.abs() * moment.diagonal().sqrt()
    each, more = divmod(round(0.6 * 63), 7)
    ordered = scores.sort(dim=1).values
    nearest = set(ordered[:, each].argsort()[:more].tolist())
    kept = sparse(weight, moment, Pattern(0.4), "wanda") != 0
    for row in range(7):
        gone = each + (row in nearest)
        assert set(scores[row][~kept[row]].tolist()) == set(ordered[row][:gone].tolist())


@pytest.mark.parametrize("method", ["magnitude", "random", "sampled"])
def test_blocks_make_up_in_later_layers_for_what_earlier_ones_missed(method):
    torch.manual_seed(0)
    sizes = (9, 13, 11, 10, 7, 14, 9, 11)
    model = torch.nn.Sequential(*(torch.nn.Linear(a, b) for a, b in pairwise(sizes)))
    x = torch.randn(16, 9)
    found = sparsify(model, sc.trace(model, x), [x], Pattern(0.5, block=(4, 4)), method)
    weights = [found.compensation.tensors[name] for name in found.zeros]
    assert len(weights) == len(model)
    gone = sum(int((weight == 0).sum()) for weight in weights)
    assert abs(gone - sum(weight.numel() for weight in weights) / 2) <= 8  # half a block


class Twice(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice = torch.nn.Linear(6, 8), torch.nn.Linear(8, 8)
        self.gru = torch.nn.GRU(8, 5, batch_first=True)
        self.head = torch.nn.Linear(5, 3)

    def forward(self, x):
        x = self.twice(self.twice(self.first(x).relu()).relu()).relu()
        return self.head(self.gru(x)[0][:, -1])


@pytest.mark.parametrize("method", METHODS)
def test_recurrent_layers_and_those_called_twice_are_cut_too(method):
    torch.manual_seed(0)
    model = Twice().eval()
    x = torch.randn(12, 7, 6)
    found = sparsify(model, sc.trace(model, x), [x], HALF, method)
    matrices = {name for name, p in model.named_parameters() if p.dim() == 2}
    assert set(found.zeros) == matrices and not found.whole
    for name in matrices:
        assert int((found.compensation.tensors[name] == 0).sum()) == pytest.approx(
            model.get_parameter(name).numel() / 2, abs=0.5
        ), name

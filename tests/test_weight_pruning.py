"""``prune_weights``: exact counts, even chances, and the same weights once more."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import secateur as sc


def net() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(5, 4),
        nn.Embedding(3, 4), nn.Linear(4, 4, bias=False),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0).abs_().add_(0.1)  # no zeros by chance
    return model


def zeros(model: nn.Module) -> int:
    return sum(int((p == 0).sum()) for p in model.parameters())


@given(percentage=st.floats(0, 1) | st.sampled_from([0, 1, 0.5]), seed=st.integers(0, 9))
def test_the_count_is_exact_and_norms_and_biases_stay(percentage, seed):
    model = net()
    before = copy.deepcopy(model)
    total = sum(p.numel() for p in model.parameters() if p.dim() >= 2)
    chosen = sc.prune_weights(model, percentage, seed=seed)
    assert sum(len(positions) for _, positions in chosen) == round(percentage * total)
    assert zeros(model) == round(percentage * total)
    places = dict(chosen)
    pairs = zip(model.parameters(), before.parameters(), strict=True)
    for number, (after, old) in enumerate(pairs):
        gone = torch.zeros(old.numel(), dtype=torch.bool)
        if number in places:
            assert old.dim() >= 2 and len(places[number])
            assert (places[number].diff() > 0).all()
            gone[places[number]] = True
        assert torch.equal(after.flatten(), torch.where(gone, 0.0, old.flatten()))


def test_every_weight_has_the_same_chance():
    """Counts over draws against the binomial: chi-square within four deviations."""
    trials, share = 600, 0.3
    model = nn.Sequential(nn.Linear(7, 3), nn.Linear(3, 5))
    sizes = [p.numel() for p in model.parameters()]
    counts = [torch.zeros(size) for size in sizes]
    torch.manual_seed(1)
    for _ in range(trials):
        for number, positions in sc.prune_weights(copy.deepcopy(model), share):
            counts[number][positions] += 1
    flat = torch.cat([counts[0], counts[2]])
    kept = round(share * 36) / 36
    chi = float(((flat - trials * kept).square() / (trials * kept * (1 - kept))).sum())
    assert abs(chi - 36) < 4 * math.sqrt(2 * 36)
    assert not counts[1].any() and not counts[3].any()


def test_draws_follow_a_seed_or_that_of_torch():
    def draw(seed=None, own=None):
        if seed is not None:
            torch.manual_seed(seed)
        return [p.tolist() for _, p in sc.prune_weights(net(), 0.4, seed=own)]

    assert draw(own=3) == draw(own=3) != draw(own=4)
    state = torch.get_rng_state()
    draw(own=3)
    model = net()
    torch.set_rng_state(state)
    first = [p.tolist() for _, p in sc.prune_weights(model, 0.4)]
    torch.set_rng_state(state)
    assert first == [p.tolist() for _, p in sc.prune_weights(model, 0.4)]
    assert first != [p.tolist() for _, p in sc.prune_weights(model, 0.4)]


def test_the_same_weights_leave_again():
    model, other = net(), net()
    chosen = sc.prune_weights(model, 0.5, seed=0)
    with torch.no_grad():  # what a training would do
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert zeros(model) == 0
    assert sc.prune_weights(model, again=chosen)[0][0] == chosen[0][0]
    sc.prune_weights(other, again=[(n, p.tolist()) for n, p in chosen])
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a == 0, b == 0)


def test_tied_weights_count_once_and_odd_layouts_work():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
            self.b.weight = self.a.weight

    assert sum(len(p) for _, p in sc.prune_weights(Tied(), 0.5)) == 18
    strided = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    ((_, positions),) = sc.prune_weights(strided, 0.25, seed=0)
    assert strided.weight.is_contiguous(memory_format=torch.channels_last)
    assert strided.weight.flatten().eq(0).nonzero().flatten().tolist() == positions.tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_it_works_where_the_model_is():
    model = net().cuda()
    chosen = sc.prune_weights(model, 0.5, seed=0)
    assert all(p.is_cuda for p in model.parameters())
    other = net()
    sc.prune_weights(other, again=chosen)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a.cpu() == 0, b == 0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda m: sc.prune_weights(m, 30), "percentage is 30; give a share from 0 to 1"),
        (lambda m: sc.prune_weights(m, -0.1), "share from 0 to 1"),
        (lambda m: sc.prune_weights(m, math.nan), "share from 0 to 1"),
        (lambda m: sc.prune_weights(m, True), "share from 0 to 1"),
        (lambda m: sc.prune_weights(m, "half"), "share from 0 to 1"),
        (lambda m: sc.prune_weights(m), "give a percentage"),
        (lambda m: sc.prune_weights(m, 0.5, again=[]), "give a percentage"),
        (lambda m: sc.prune_weights(m, again=[(0, torch.tensor([1])), (99, torch.tensor([0]))]),
         "no parameter 99 among the 8"),
        (lambda m: sc.prune_weights(m, again=[(0, torch.tensor([90]))]), "parameter 0 has 90 entr"),
        (lambda m: sc.prune_weights(nn.BatchNorm2d(3), 0.5), "no parameter of two or more"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_and_changes_nothing(make, said):
    model = net()
    with pytest.raises(sc.InputError, match=said):
        make(model)
    assert zeros(model) == 0

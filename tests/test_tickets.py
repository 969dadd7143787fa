"""Masks before a training, lottery tickets, and epochs that are gone back to."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

import secateur as sc
from method_cases import settings_of, structure_of_small_net
from secateur.surgery.storing import read_tensors
from secateur.tickets import lottery_ticket, masks_before
from secateur.training.keeping import KeepEpochs, place_of, tensors_of_epoch
from secateur.training.loading import batches
from secateur.training.loop import finetune
from secateur.training.state import model_tensors
from training_cases import Stop, accuracy, assert_equal, blobs, small_net

ALL = 864  # elements of the three weights


def zeros_in(masks) -> int:
    return sum(int((~mask).sum()) for mask in masks.values())


@pytest.mark.parametrize("criterion", ["snip", "grasp", "synflow", "l1"])
@pytest.mark.parametrize("rounds", [1, 5])
def test_masks_before_a_training_have_exactly_the_stated_zeros(criterion, rounds):
    net = small_net()
    before = {n: t.clone() for n, t in model_tensors(net).items()}
    masks = masks_before(
        net, structure_of_small_net(), criterion, 0.77, rounds=rounds,
        data=batches(blobs(64), 32),
    )  # fmt: skip
    assert zeros_in(masks) == round(0.77 * ALL)
    assert all(torch.equal(t, before[n]) for n, t in model_tensors(net).items())


def test_rounds_score_what_is_left_anew_and_bring_nothing_back():
    """A chain of two layers of one path: after a cut the flow of what hung on it is zero."""
    net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    structure = sc.trace(net, torch.randn(2, 3))
    seen = []
    for zeros in (0.3, 0.6, 0.8):
        rounds = round(10 * math.log(1 - zeros) / math.log(0.2))  # the same steps, broken off
        seen.append(masks_before(net, structure, "synflow", zeros, rounds=rounds))
    for earlier, later in pairwise(seen):
        assert all(not (later[n] & ~earlier[n]).any() for n in later)


def test_synflow_in_a_hundred_rounds_never_cuts_a_layer_off():
    """In one shot a whole layer of this net goes; a hundred rounds leave paths through it."""
    torch.manual_seed(0)
    widths = (20, 30, 40, 60, 10)
    net = nn.Sequential(
        *(m for a, b in pairwise(widths)
          for m in (nn.Linear(a, b, bias=False), nn.ReLU()))
    )[:-1]  # fmt: skip
    structure = sc.trace(net, torch.randn(2, 20))
    kept = {}
    for rounds in (1, 100):
        masks = masks_before(net, structure, "synflow", 0.985, rounds=rounds)
        kept[rounds] = min(int(mask.sum()) for mask in masks.values())
    assert kept[1] == 0 < kept[100]


def test_criteria_that_need_gradients_say_so_without_data():
    net, structure = small_net(), structure_of_small_net()
    with pytest.raises(sc.InputError, match=r"'snip' needs data for its gradients"):
        masks_before(net, structure, "snip", 0.5)
    with pytest.raises(sc.InputError, match="share to remove is 1"):
        masks_before(net, structure, "l1", 1.0)
    with pytest.raises(sc.InputError, match="rounds is 0"):
        masks_before(net, structure, "l1", 0.5, rounds=0)
    with pytest.raises(sc.InputError, match="keep names 'nothing'"):
        masks_before(net, structure, "l1", 0.5, keep=["nothing"])
    assert set(masks_before(net, structure, "l1", 0.5, keep=["0"])) == {"4.weight", "8.weight"}


def test_epochs_are_kept_as_they_were(tmp_path):
    net, seen = small_net(), {}

    def remember(report) -> None:
        seen[report.epoch] = {n: t.clone() for n, t in model_tensors(net).items()}

    start = {n: t.clone() for n, t in model_tensors(net).items()}
    finetune(net, blobs(64), settings_of(3), on_epoch=remember,
             methods=[KeepEpochs((0, 2), str(tmp_path))])  # fmt: skip
    for epoch, expected in ((0, start), (2, seen[2])):
        kept = tensors_of_epoch(tmp_path, epoch)
        assert kept.keys() == expected.keys()
        assert all(torch.equal(kept[n], t) for n, t in expected.items())
    with pytest.raises(sc.InputError, match="no weights of epoch 1"):
        tensors_of_epoch(tmp_path, 1)


def test_a_ticket_is_trained_from_the_weights_of_its_epoch_under_its_masks(tmp_path):
    """By hand: one round is a training, the largest weights, the weights of epoch 1, a training."""
    settings = settings_of(3, keep_best=False, checkpoint_every=None)
    ticket, net = small_net(), small_net()
    structure = structure_of_small_net()
    history = lottery_ticket(ticket, structure, blobs(96), settings, 0.6, rounds=1, rewind=1)
    keeping = KeepEpochs((1,), str(tmp_path))
    finetune(net, blobs(96), settings, methods=[keeping], structure=structure)
    weights = {n: p.detach() for n, p in net.named_parameters() if p.dim() > 1}
    line = torch.cat([w.flatten() for w in weights.values()]).abs().sort().values
    limit = line[round(0.6 * ALL) - 1]
    masks = {n: w.abs() > limit for n, w in weights.items()}
    net.load_state_dict(read_tensors(place_of(tmp_path, 1)))
    finetune(net, blobs(96), replace(settings, begin_at=1), masks=masks)
    assert all(torch.equal(history.masks[n], mask) for n, mask in masks.items())
    assert_equal(ticket, net)


@pytest.mark.parametrize("weights", [True, False])
def test_tickets_of_several_rounds_shrink_and_end_exact(weights):
    net = small_net()
    history = lottery_ticket(
        net, structure_of_small_net(), blobs(96), settings_of(2, checkpoint_every=None), 0.8,
        rounds=3, rewind=1, weights=weights, validate=accuracy,
    )  # fmt: skip
    assert zeros_in(history.masks) == round(0.8 * ALL)
    assert all(not model_tensors(net)[n][~m].any() for n, m in history.masks.items())
    assert [report.epoch for report in history.epochs] == [2]


def test_an_interrupted_ticket_goes_on_and_ends_bit_equal(tmp_path):
    settings = settings_of(3, checkpoint_every=1)
    structure, whole, resumed = structure_of_small_net(), small_net(), small_net()
    lottery_ticket(whole, structure, blobs(64), settings, 0.6, rounds=2, rewind=1)
    epochs = [0]

    def stop(report) -> None:
        epochs[0] += 1
        if epochs[0] == 5:  # in the second training
            raise Stop

    with pytest.raises(Stop):
        lottery_ticket(small_net(), structure, blobs(64), settings, 0.6, rounds=2, rewind=1,
                       folder=tmp_path, on_epoch=stop)  # fmt: skip
    history = lottery_ticket(
        resumed, structure, blobs(64), settings, 0.6, rounds=2, rewind=1, folder=tmp_path
    )  # fmt: skip
    assert_equal(whole, resumed)
    assert zeros_in(history.masks) == round(0.6 * ALL)


def test_tickets_out_of_range_are_refused():
    for values, sentence in (({"rewind": 3}, "rewind is 3 of 3 epochs"), ({"rounds": 0}, "rounds"),
                             ({"zeros": 1.0}, "share to remove is 1")):  # fmt: skip
        with pytest.raises(sc.InputError, match=sentence):
            lottery_ticket(
                small_net(), structure_of_small_net(), blobs(32), settings_of(3), **values
            )  # fmt: skip

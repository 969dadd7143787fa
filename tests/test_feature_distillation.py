"""What modules answer is taught: by formulas, and into a narrower net."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import secateur as sc
from method_cases import settings_of, structure_of_small_net
from secateur.training.distillation import Distillation
from secateur.training.features import (
    Taps,
    attention_loss,
    attention_map,
    feature_loss,
    surviving_channels,
)
from secateur.training.loop import finetune
from training_cases import blobs, small_net

IMAGES = blobs(8).tensors[0]
REMOVE = {"0": (1, 5), "4": (0, 2)}


def narrow() -> nn.Module:
    return sc.apply(
        small_net().eval(), sc.PruningPlan(remove=REMOVE), IMAGES,
        structure=structure_of_small_net(),
    )  # fmt: skip


def test_channels_that_survive_are_those_of_the_plan():
    found = surviving_channels(structure_of_small_net(), REMOVE)
    assert found["0"].tolist() == [0, 2, 3, 4, 6, 7] and found["4"].tolist() == [1, 3, 4, 5]
    whole = surviving_channels(structure_of_small_net(), {})
    assert whole["0"].tolist() == list(range(8))


def test_a_pruned_net_answers_with_the_channels_of_its_teacher():
    """Before anything is trained the first layer agrees exactly, the second does not."""
    teacher, student = small_net().eval(), narrow().eval()
    channels = surviving_channels(structure_of_small_net(), REMOVE)
    taps = Taps(student, ["0", "4"], "model"), Taps(teacher, ["0", "4"], "teacher")
    with torch.no_grad():
        student(IMAGES), teacher(IMAGES)
    ours, theirs = taps[0].taken(), taps[1].taken()
    first = feature_loss({"0": ours["0"]}, theirs, channels)
    assert float(first) < 1e-12 < float(feature_loss({"4": ours["4"]}, theirs, channels))
    taught = theirs["4"][:, [1, 3, 4, 5]]
    by_hand = ((ours["4"] - taught) ** 2).mean() / (taught**2).mean()
    torch.testing.assert_close(feature_loss({"4": ours["4"]}, theirs, channels), by_hand)
    both = feature_loss(ours, theirs, channels)
    torch.testing.assert_close(both, (first + by_hand) / 2)
    for tap in taps:
        tap.close()
    student(IMAGES)
    assert not taps[0].taken()


def test_attention_is_its_formula_and_does_not_see_the_width():
    a = torch.randn(3, 4, 2, 5)
    rows = attention_map(a)
    for sample in range(3):
        places = torch.stack([(a[sample, :, i, j] ** 2).mean() for i in range(2) for j in range(5)])
        torch.testing.assert_close(rows[sample], places / places.norm())
    doubled = torch.cat([a, a], 1)  # twice the width, the same map
    assert float(attention_loss({"m": a}, {"m": doubled})) == pytest.approx(0, abs=1e-12)
    b = torch.randn(3, 7, 2, 5)
    expected = ((attention_map(a) - attention_map(b)) ** 2).sum(1).mean()
    torch.testing.assert_close(attention_loss({"m": a}, {"m": b}), expected)
    sequence = torch.randn(2, 6, 4)  # [samples, places, channels]
    assert attention_map(sequence).shape == (2, 6)


def _distance(student: nn.Module, teacher: nn.Module) -> float:
    channels = surviving_channels(structure_of_small_net(), REMOVE)
    taps = Taps(student, ["4"], "model"), Taps(teacher, ["4"], "teacher")
    with torch.no_grad():
        student.eval()(IMAGES), teacher.eval()(IMAGES)
    ours, theirs = taps[0].taken(), taps[1].taken()
    for tap in taps:
        tap.close()
    return float(feature_loss(ours, theirs, channels))


def test_features_of_the_teacher_are_learnt():
    distances = {}
    for weight in (0.0, 3.0):
        teacher, student = small_net(), narrow()
        settings = settings_of(
            6, distill=Distillation(alpha=0.5, features=weight), checkpoint_every=None
        )  # fmt: skip
        finetune(
            student, blobs(192), settings, teacher=teacher,
            channels=surviving_channels(structure_of_small_net(), REMOVE),
        )  # fmt: skip
        assert not student[4]._forward_hooks and not teacher[4]._forward_hooks
        distances[weight] = _distance(student, teacher)
    assert distances[3.0] < 0.5 * distances[0.0]


def test_modules_are_named_by_the_user_or_by_the_plan():
    settings = settings_of(1, distill=Distillation(features=1.0, at=("nothing",)))
    with pytest.raises(sc.InputError, match="module 'nothing', which the model does not have"):
        finetune(narrow(), blobs(32), settings, teacher=small_net())
    settings = settings_of(1, distill=Distillation(features=1.0))
    with pytest.raises(sc.InputError, match="name some with distill_at"):
        finetune(narrow(), blobs(32), settings, teacher=small_net())
    settings = settings_of(1, distill=Distillation(features=1.0, at=("4",)))
    with pytest.raises(sc.InputError, match=r"in the model and .* in the teacher"):
        finetune(narrow(), blobs(32), settings, teacher=small_net())
    settings = settings_of(1, distill=Distillation(attention=1.0, at=("8",)))
    with pytest.raises(sc.InputError, match="no places to attend to"):
        finetune(narrow(), blobs(32), settings, teacher=small_net())
    finetune(  # of other widths, which attention does not mind
        narrow(), blobs(32), settings_of(1, distill=Distillation(0.0, attention=1.0, at=("4",))),
        teacher=small_net(),
    )  # fmt: skip
    with pytest.raises(sc.InputError, match="alpha, features or attention above 0"):
        Distillation(alpha=0.0)

"""Losses, distillation, learning rates, optimizers."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from secateur.errors import InputError
from secateur.training.distillation import distillation_loss
from secateur.training.learning_rates import SCHEDULES, rate_factor
from secateur.training.losses import default_loss
from secateur.training.optimizers import OPTIMIZERS, make_optimizer
from secateur.training.settings import FinetuneSettings
from training_cases import (
    small_net,
)


def test_the_loss_follows_the_targets():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=generator)
    classes = torch.randint(4, (6,), generator=generator)
    expected = -logits.log_softmax(1)[torch.arange(6), classes].mean()
    for outputs in (logits, (logits, None), {"loss": None, "logits": logits}):
        torch.testing.assert_close(default_loss(outputs, classes), expected)
    torch.testing.assert_close(default_loss(logits, classes.to(torch.uint8)), expected)
    values = torch.randn(6, dtype=torch.float64, generator=generator)
    column = torch.randn(6, 1, generator=generator)
    torch.testing.assert_close(
        default_loss(column, values), (column[:, 0] - values).pow(2).mean().float()
    )


def test_classes_may_stand_in_the_second_or_in_the_last_dimension():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 7, generator=generator)
    classes = torch.randint(5, (2, 7), generator=generator)
    classes[0, 3] = -100
    expected = functional.cross_entropy(logits, classes)
    assert torch.equal(default_loss(logits, classes), expected)
    torch.testing.assert_close(default_loss(logits.transpose(1, 2), classes), expected)


def test_shapes_that_do_not_belong_together_are_refused():
    with pytest.raises(InputError, match=r"\[6, 4\] for integer targets \[5\]"):
        default_loss(torch.zeros(6, 4), torch.zeros(5, dtype=torch.long))
    with pytest.raises(InputError, match=r"\[6, 6\] for float targets \[6\]"):
        default_loss(torch.zeros(6, 6), torch.zeros(6))  # would broadcast
    with pytest.raises(InputError, match="label_smoothing"):
        default_loss(torch.zeros(6), torch.zeros(6), label_smoothing=0.1)
    with pytest.raises(InputError, match="without a tensor"):
        default_loss({}, torch.zeros(6))


def test_distillation_is_the_divergence_times_the_square_of_the_temperature():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 4, generator=generator).double()
    classes = torch.zeros(6, dtype=torch.long)
    p, q = (teacher / 3).softmax(1), (student / 3).softmax(1)
    expected = 9 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, classes, 3.0), expected)
    assert distillation_loss(student, student, classes, 3.0).abs() < 1e-12
    classes[:3] = -100
    expected = 9 * (p * (p / q).log())[3:].sum(1).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, classes, 3.0), expected)
    values = torch.zeros(6, 4)
    torch.testing.assert_close(
        distillation_loss(student, teacher, values, 3.0), (student - teacher).pow(2).mean()
    )


def test_gradients_of_distillation_keep_their_size_at_any_temperature():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 4, generator=generator).double() / 10
    sizes = []
    for temperature in (10.0, 1000.0):
        leaf = student.clone().requires_grad_()
        distillation_loss(leaf, teacher, torch.zeros(6).long(), temperature).backward()
        assert leaf.grad is not None
        sizes.append(leaf.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)


def test_schedules():
    assert [rate_factor("constant", p) for p in (0, 0.5, 1)] == [1, 1, 1]
    assert [rate_factor("linear", p) for p in (0, 0.25, 1)] == [1, 0.75, 0]
    assert [rate_factor("cosine", p) for p in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert [rate_factor("step", p) for p in (0.49, 0.5, 0.75)] == pytest.approx([1, 0.1, 0.01])
    cycle = [rate_factor("onecycle", p) for p in (0, 0.15, 0.3, 0.65, 1)]
    assert cycle == pytest.approx([1 / 25, 0.52, 1, 0.5, 0])
    for name in SCHEDULES:
        values = [rate_factor(name, p / 200, 0.25) for p in range(201)]
        assert values[:51] == sorted(values[:51]) and values[50] == 1
        assert values[50:] == sorted(values[50:], reverse=True)
        assert min(values) >= 0 and max(values) <= 1
    assert rate_factor("linear", 0.1, 0.2) == pytest.approx(0.5)
    for wrong, sentence in [
        (("cosin", 0.5, 0.0), "did you mean 'cosine'"),
        (("cosine", 1.5, 0.0), "progress is 1.5"),
        (("cosine", 0.5, 1.0), "warmup is 1.0"),
    ]:
        with pytest.raises(InputError, match=sentence):
            rate_factor(*wrong)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_leaves_norms_and_biases_alone(name):
    def after(decay_all: bool) -> dict[str, bool]:
        net = small_net()
        before = {key: p.detach().clone() for key, p in net.named_parameters()}
        optimizer = make_optimizer(net, name, 0.1, 0.9, 0.1, decay_all)
        for parameter in net.parameters():
            parameter.data.add_(1.0)
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        return {key: torch.equal(p, before[key] + 1.0) for key, p in net.named_parameters()}

    untouched = after(decay_all=False)
    assert untouched == {key: "bias" in key or key in ("1.weight", "5.weight") for key in untouched}
    assert not any(after(decay_all=True).values())


def test_optimizers_refuse_what_they_cannot_use():
    net = small_net()
    with pytest.raises(InputError, match="did you mean 'adam'"):
        make_optimizer(net, "adm")
    for wrong in ({"learning_rate": 0.0}, {"momentum": 1.0}, {"weight_decay": -1.0}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))} is"):
            make_optimizer(net, **wrong)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(InputError, match="nothing to train"):
        make_optimizer(net)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"epochs": 0}, {"batch_size": 0}, {"optimizer": "sdg"}, {"schedule": "cos"}),
        *({"warmup": 1}, {"label_smoothing": 1}, {"gradient_clip": 0}, {"seed": -1}),
        *({"mixed_precision": "half"}, {"checkpoint_every": 0}),
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        FinetuneSettings(**wrong)

"""``finetune``: it learns, keeps the best, and leaves the rest as it was."""

from __future__ import annotations

import math
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from secateur.errors import InputError, TrainingError
from secateur.training.distillation import Distillation
from secateur.training.layouts import with_safe_layout
from secateur.training.loading import batches
from secateur.training.loop import finetune
from secateur.training.optimizers import OPTIMIZERS
from secateur.training.settings import FinetuneSettings
from secateur.training.state import model_tensors
from secateur.training.stepping import time_step
from training_cases import (
    accuracy,
    assert_equal,
    blobs,
    graph_net,
    small_net,
)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("make", [small_net, graph_net])
def test_it_learns(make, optimizer):
    net = make()
    with torch.no_grad():
        before = accuracy(net.eval())["accuracy"]
    rate = 0.05 if optimizer == "sgd" else 0.01
    settings = FinetuneSettings(epochs=8, batch_size=32, optimizer=optimizer, learning_rate=rate)
    history = finetune(net, blobs(600), settings, validate=accuracy)
    assert history.epochs[-1].loss < 0.6 * history.epochs[0].loss
    with torch.no_grad():
        after = accuracy(net)["accuracy"]
    assert before < 0.6 and after > 0.9
    assert history.kept_report is not None
    assert after == history.kept_report.metrics["accuracy"]


def test_one_update_is_what_pytorch_does_by_hand():
    data = blobs(16)
    net, by_hand = small_net(), small_net()
    for each in (net, by_hand):
        each[3].p = 0.0
    settings = FinetuneSettings(
        epochs=1, batch_size=16, learning_rate=0.1, momentum=0.0, weight_decay=0.0,
        schedule="constant", label_smoothing=0.1, gradient_clip=0.5,
    )  # fmt: skip
    history = finetune(net, data, settings)
    (inputs, targets), *_ = batches(data, 16, seed=0)
    loss = functional.cross_entropy(by_hand.train()(inputs), targets, label_smoothing=0.1)
    loss.backward()
    gradients = [p.grad for p in by_hand.parameters() if p.grad is not None]
    norm = math.sqrt(sum(g.pow(2).sum().item() for g in gradients))
    assert norm > 0.5
    for parameter in by_hand.parameters():
        assert parameter.grad is not None
        parameter.data -= 0.1 * parameter.grad * 0.5 / norm
    assert history.epochs[0].loss == pytest.approx(loss.item())
    for name, tensor in model_tensors(net).items():
        torch.testing.assert_close(tensor, model_tensors(by_hand)[name], msg=name)


def test_a_training_leaves_everything_else_as_it_was():
    net, teacher = small_net(), small_net(1)
    net.eval()
    net[1].train()
    teacher.train()
    modes = [m.training for m in net.modules()]
    taught = {name: t.clone() for name, t in model_tensors(teacher).items()}
    torch.manual_seed(11), np.random.seed(11), random.seed(11)
    expected = torch.rand(2), np.random.rand(), random.random()
    torch.manual_seed(11), np.random.seed(11), random.seed(11)
    settings = FinetuneSettings(epochs=1, batch_size=16, distill=Distillation())
    finetune(net, blobs(), settings, teacher=teacher)
    drawn = torch.rand(2), np.random.rand(), random.random()
    assert torch.equal(drawn[0], expected[0]) and drawn[1:] == expected[1:]
    assert [m.training for m in net.modules()] == modes
    assert all(m.training for m in teacher.modules())
    for name, tensor in model_tensors(teacher).items():
        assert torch.equal(tensor, taught[name])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_seed_decides_and_a_validation_does_not():
    nets = [small_net() for _ in range(4)]
    settings = FinetuneSettings(epochs=2, batch_size=16, keep_best=False)
    finetune(nets[0], blobs(), settings)
    torch.rand(5)
    finetune(nets[1], blobs(), settings, validate=accuracy)
    assert_equal(nets[0], nets[1])
    finetune(nets[2], blobs(), FinetuneSettings(epochs=2, batch_size=16, keep_best=False, seed=1))
    assert not torch.equal(nets[0][0].weight, nets[2][0].weight)
    finetune(nets[3], blobs(), settings, loss=lambda o, t: functional.cross_entropy(o, t) * 0.5)
    assert not torch.equal(nets[0][0].weight, nets[3][0].weight)


@pytest.mark.parametrize(("before", "higher", "expected"), [
    (0.2, True, 2), (0.9, True, 2), (0.95, True, 0), (math.nan, True, 2),
    (0.2, False, 3), (0.1, False, 3), (0.05, False, 0),
])  # fmt: skip
def test_the_best_epoch_is_kept_or_the_model_as_it_was_where_all_are_worse(
    before, higher, expected
):
    scores = iter([before, 0.5, 0.9, 0.1, 0.9, math.nan])
    seen = []

    def validate(model: nn.Module) -> dict[str, float]:
        seen.append({name: t.clone() for name, t in model_tensors(model).items()})
        return {"other": 1.0, "score": next(scores)}

    net = small_net()
    settings = FinetuneSettings(
        epochs=5, batch_size=16, best_by="score", higher_is_better=higher
    )  # fmt: skip
    history = finetune(net, blobs(), settings, validate=validate)
    assert history.kept == expected
    assert [0, *(report.epoch for report in history.epochs if report.best)][-1] == expected
    assert (history.kept_report is None) == (expected == 0)
    for name, tensor in model_tensors(net).items():
        assert torch.equal(tensor, seen[expected][name])
    assert not torch.equal(seen[expected]["0.weight"], seen[-1]["0.weight"])


def test_a_teacher_alone_teaches():
    teacher, net, images = small_net(5).eval(), small_net(), blobs(300)
    finetune(teacher, images, FinetuneSettings(epochs=5, batch_size=32))
    with torch.no_grad():
        taught = teacher(images.tensors[0]).argmax(1)
    wrong = TensorDataset(images.tensors[0], torch.zeros(300, dtype=torch.long))
    settings = FinetuneSettings(
        epochs=15, batch_size=32, optimizer="adam", distill=Distillation(alpha=1.0, temperature=2.0)
    )
    finetune(net, wrong, settings, teacher=teacher)
    with torch.no_grad():
        agreed = (net.eval()(images.tensors[0]).argmax(1) == taught).float().mean()
    assert taught.eq(0).float().mean() < 0.5 and agreed > 0.9
    with pytest.raises(InputError, match="distillation wants both"):
        finetune(net, wrong, FinetuneSettings(), teacher=teacher)
    with pytest.raises(InputError, match="distillation wants both"):
        finetune(net, wrong, settings)


def test_a_regression_with_several_inputs_and_named_ones_learns():
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(3, 1), nn.Linear(2, 1)

        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return self.left(left) + self.right(right)

    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(200, 3, generator=generator), torch.randn(200, 2, generator=generator)
    targets = left.sum(1) - right.sum(1)
    named = [({"left": a, "right": b}, t) for a, b, t in zip(left, right, targets, strict=True)]
    settings = FinetuneSettings(epochs=10, batch_size=20, learning_rate=0.1, weight_decay=0.0)
    torch.manual_seed(0)  # else the nets are what the tests before this one left
    nets = [Sum(), Sum()]
    nets[1].load_state_dict(nets[0].state_dict())
    history = finetune(nets[0], TensorDataset(left, right, targets), settings)
    finetune(nets[1], named, settings)  # type: ignore[arg-type]
    assert history.epochs[-1].loss < 1e-3
    assert_equal(nets[0], nets[1])


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path):
    data = blobs()
    data.tensors[0][list(range(70))[-1]] = math.nan
    path = tmp_path / "checkpoint"
    settings = FinetuneSettings(epochs=2, batch_size=16, checkpoint_every=1)
    net = small_net()
    with pytest.raises(TrainingError, match=r"nan in epoch 1, batch \d of 5; try a learning rate"):
        finetune(net, data, settings, checkpoint=path)
    assert all(t.isfinite().all() for n, t in model_tensors(net).items() if "running" not in n)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns_and_leaves_float32_weights(precision):
    net = small_net()
    settings = FinetuneSettings(
        epochs=6, batch_size=32, learning_rate=0.05, mixed_precision=precision, gradient_clip=5.0
    )
    history = finetune(net, blobs(300), settings)
    assert history.epochs[-1].loss < 0.7 * history.epochs[0].loss
    assert all(p.dtype == torch.float32 for p in net.parameters())


@pytest.mark.parametrize("channels, stride, kernel, expected", [
    (4, 2, 1, False), (15, 2, 1, False), (1, 2, 1, False),
    (16, 2, 1, True), (4, 1, 1, True), (4, 2, 3, True),
])  # fmt: skip
def test_channels_last_is_left_out_where_onednn_writes_past_its_buffer(
    channels, stride, kernel, expected
):
    model = nn.Sequential(
        nn.Conv2d(3, channels, 3), nn.Conv2d(channels, 12, kernel, stride), nn.BatchNorm2d(12),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wanted = FinetuneSettings(channels_last=True)
    found = with_safe_layout(wanted, model, torch.randn(2, 3, 30, 30), torch.device("cpu"))
    assert found.channels_last is expected
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_narrow_strided_shortcut_trains_channels_last():
    """With that layout this one crashed the process; hence a process of its own."""
    code = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
from secateur.training.loop import finetune
from secateur.training.settings import FinetuneSettings

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 12, 1, 2), nn.Flatten(), nn.LazyLinear(3))
data = TensorDataset(torch.randn(96, 1, 30, 30), torch.randint(3, (96,)))
model(data[:2][0])
finetune(model, data, FinetuneSettings(epochs=3, batch_size=16, channels_last=True))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_channels_last_trains_and_goes_back():
    nets = small_net(), small_net()
    for net, layout in zip(nets, (False, True), strict=True):
        net[3].p = 0.0
        settings = FinetuneSettings(epochs=1, batch_size=16, channels_last=layout)
        finetune(net, blobs(64), settings)
    for name, tensor in model_tensors(nets[1]).items():
        assert tensor.is_contiguous()
        torch.testing.assert_close(tensor, model_tensors(nets[0])[name], rtol=1e-3, atol=1e-5)


def test_time_step_measures_and_changes_nothing():
    for net in (small_net(), graph_net()):
        before = {name: t.clone() for name, t in model_tensors(net).items()}
        state = torch.get_rng_state()
        small = time_step(net, next(batches(blobs(8), 8)), repeats=5)
        large = time_step(net, next(batches(blobs(4000), 4000)), repeats=5)
        assert 0 < small < large
        assert torch.equal(state, torch.get_rng_state())
        assert all(torch.equal(t, before[name]) for name, t in model_tensors(net).items())
        assert all(p.grad is None for p in net.parameters())
    with pytest.raises(InputError, match="repeats is 0"):
        time_step(small_net(), next(batches(blobs(8), 8)), repeats=0)

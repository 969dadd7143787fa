"""A training that is killed at any moment and ends bit-equal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from secateur.training.loop import finetune
from secateur.training.optimizers import OPTIMIZERS
from secateur.training.settings import FinetuneSettings
from training_cases import (
    SETTINGS,
    VARIANTS,
    Drawing,
    Stop,
    accuracy,
    assert_equal,
    blobs,
    graph_net,
    small_net,
    stop_after,
    variant,
)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_training_killed_after_any_update_ends_bit_equal(name, tmp_path):
    undisturbed = small_net()
    expected = finetune(undisturbed, blobs(), variant(name), validate=accuracy)
    for updates in (1, 4, 5, 6, 13, 15):  # five updates make an epoch
        path = tmp_path / f"{updates}.safetensors"
        with pytest.raises(Stop):
            finetune(
                small_net(), blobs(), variant(name), validate=accuracy, checkpoint=path,
                on_step=stop_after(updates),
            )  # fmt: skip
        resumed = small_net(9)  # every tensor comes from the checkpoint
        torch.rand(updates)
        history = finetune(resumed, blobs(), variant(name), validate=accuracy, checkpoint=path)
        assert_equal(undisturbed, resumed)
        assert history.kept == expected.kept
        for ours, theirs in zip(history.epochs, expected.epochs, strict=True):
            assert (ours.loss, ours.metrics, ours.best) == (
                theirs.loss,
                theirs.metrics,
                theirs.best,
            )
            assert (ours.samples, ours.learning_rate) == (theirs.samples, theirs.learning_rate)


def test_a_graph_model_and_a_data_set_that_draws_end_bit_equal(tmp_path):
    undisturbed, killed, path = graph_net(), graph_net(), tmp_path / "checkpoint"
    assert True in undisturbed.programs  # type: ignore[operator]
    finetune(undisturbed, Drawing(), SETTINGS)
    settings = FinetuneSettings(**{**vars(SETTINGS), "checkpoint_every": 3})
    with pytest.raises(Stop):
        finetune(killed, Drawing(), settings, checkpoint=path, on_step=stop_after(8))
    resumed = graph_net()
    finetune(resumed, Drawing(), settings, checkpoint=path)
    assert_equal(undisturbed, resumed)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_scale_of_fp16_goes_on_where_it_was(optimizer, tmp_path):
    def loud(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(outputs, targets) * 1000  # fp16 overflows at first

    undisturbed, resumed, path = small_net(), small_net(), tmp_path / "checkpoint"
    settings = FinetuneSettings(
        epochs=5, batch_size=16, learning_rate=1e-5 if optimizer == "sgd" else 1e-2,
        mixed_precision="fp16", checkpoint_every=1, optimizer=optimizer,
    )  # fmt: skip
    losses = [e.loss for e in finetune(undisturbed, blobs(), settings, loss=loud).epochs]
    assert min(losses[2:]) < losses[0]  # the ten steps that are skipped leave no rubbish behind
    with pytest.raises(Stop):
        finetune(small_net(), blobs(), settings, loss=loud, checkpoint=path, on_step=stop_after(20))
    finetune(resumed, blobs(), settings, loss=loud, checkpoint=path)
    assert_equal(undisturbed, resumed)


def test_killed_many_times_and_with_other_intervals_it_ends_bit_equal(tmp_path):
    undisturbed, path, net = small_net(), tmp_path / "checkpoint", small_net()
    finetune(undisturbed, blobs(), SETTINGS)
    for every, updates in ((2, 3), (1, 1), (3, 5), (1, 2)):
        settings = FinetuneSettings(**{**vars(SETTINGS), "checkpoint_every": every})
        with pytest.raises(Stop):
            finetune(net, blobs(), settings, checkpoint=path, on_step=stop_after(updates))
    finetune(net, blobs(), SETTINGS, checkpoint=path)
    assert_equal(undisturbed, net)


def test_an_error_after_an_epoch_loses_nothing_and_a_finished_training_stays(tmp_path):
    undisturbed, net, path = small_net(), small_net(), tmp_path / "checkpoint"
    finetune(undisturbed, blobs(), SETTINGS, validate=accuracy)

    def on_epoch(report) -> None:
        raise Stop

    for _ in range(SETTINGS.epochs):
        with pytest.raises(Stop):
            finetune(net, blobs(), SETTINGS, validate=accuracy, checkpoint=path, on_epoch=on_epoch)

    def never(report) -> None:
        raise AssertionError("nothing is left to train")

    again = small_net(4)
    history = finetune(
        again, blobs(), SETTINGS, validate=accuracy, checkpoint=path, on_epoch=never, on_step=never
    )
    assert_equal(undisturbed, again)
    assert [report.epoch for report in history.epochs] == [1, 2, 3]


@pytest.mark.parametrize("moment", ["update", "validation"])
def test_ctrl_c_writes_a_checkpoint_and_is_raised_again(moment, tmp_path):
    undisturbed, net, path = small_net(), small_net(), tmp_path / "checkpoint"
    finetune(undisturbed, blobs(), SETTINGS, validate=accuracy)
    calls = [0]

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if moment == "update" and calls[0] == 7:
            os.kill(os.getpid(), signal.SIGINT)  # in the middle of the seventh update
        return functional.cross_entropy(outputs, targets)

    def validate(model: nn.Module) -> dict[str, float]:
        result = accuracy(model)
        if moment == "validation" and calls[0]:  # that after the first epoch
            os.kill(os.getpid(), signal.SIGINT)
        return result

    with pytest.raises(KeyboardInterrupt):
        finetune(net, blobs(), SETTINGS, validate=validate, checkpoint=path, loss=loss)
    assert calls[0] == (7 if moment == "update" else 5)
    # Nothing done is done again: eight updates of fifteen are left, or ten.
    left = [0]
    finetune(
        net, blobs(), SETTINGS, validate=accuracy, checkpoint=path,
        on_step=lambda report: left.__setitem__(0, left[0] + 1),
    )  # fmt: skip
    assert left[0] == 15 - calls[0]
    assert_equal(undisturbed, net)


def test_a_second_ctrl_c_is_raised_at_once_and_writes_nothing(tmp_path):
    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second Ctrl-C came through")

    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        finetune(small_net(), blobs(), SETTINGS, checkpoint=path, loss=loss)
    assert not path.exists()


def test_it_trains_in_a_thread_of_its_own():
    nets = small_net(), small_net()
    thread = threading.Thread(target=finetune, args=(nets[0], blobs(), SETTINGS))
    thread.start()
    thread.join()
    finetune(nets[1], blobs(), SETTINGS)
    assert_equal(*nets)


KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from training_cases import SETTINGS, Drawing, accuracy, small_net
from secateur.training.loop import finetune
from secateur.training.optimizers import OPTIMIZERS
from secateur.training.settings import FinetuneSettings

def on_step(report):
    if (report.epoch, report.batch) == (2, 4):
        os.kill(os.getpid(), signal.SIGKILL)

settings = FinetuneSettings(**{**vars(SETTINGS), "checkpoint_every": 2})
finetune(
    small_net(), Drawing(), settings, validate=accuracy, checkpoint=sys.argv[1], on_step=on_step
)
"""


def test_kill_9_and_another_process_end_bit_equal(tmp_path):
    path, here = tmp_path / "checkpoint", Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": str(here), "OMP_NUM_THREADS": "1"}
    child = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment, check=False)
    assert child.returncode == -signal.SIGKILL
    undisturbed, resumed = small_net(), small_net()
    finetune(undisturbed, Drawing(), SETTINGS, validate=accuracy)
    done = []
    finetune(resumed, Drawing(), SETTINGS, validate=accuracy, checkpoint=path, on_step=done.append)
    assert (done[0].epoch, done[0].batch) == (2, 4)  # saved at (2, 3)
    assert_equal(undisturbed, resumed)


def test_a_model_that_every_epoch_made_worse_comes_back_from_a_checkpoint(tmp_path):
    given = small_net()

    def nearness(model: nn.Module) -> dict[str, float]:
        pairs = zip(model.parameters(), given.parameters(), strict=True)
        return {"nearness": -float(sum((a - b).square().sum() for a, b in pairs))}

    for updates in (1, 5, 6, 15):  # five updates make an epoch
        path = tmp_path / f"{updates}.safetensors"
        with pytest.raises(Stop):
            finetune(
                small_net(), blobs(), variant("sgd"), validate=nearness, checkpoint=path,
                on_step=stop_after(updates),
            )  # fmt: skip
        resumed = small_net(9)
        history = finetune(resumed, blobs(), variant("sgd"), validate=nearness, checkpoint=path)
        assert history.kept == 0 and history.before == {"nearness": 0.0}
        assert len(history.epochs) == 3
        assert_equal(given, resumed)


def test_a_training_that_was_stopped_before_its_first_epoch_looks_again(tmp_path):
    path, calls = tmp_path / "checkpoint", []

    def stopped(model: nn.Module) -> dict[str, float]:
        calls.append(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(small_net(), blobs(), SETTINGS, validate=stopped, checkpoint=path)
    nets = small_net(9), small_net()
    resumed = finetune(nets[0], blobs(), SETTINGS, validate=accuracy, checkpoint=path)
    whole = finetune(nets[1], blobs(), SETTINGS, validate=accuracy)
    assert calls == [1] and resumed.before == whole.before != {}
    assert_equal(*nets)

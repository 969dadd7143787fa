"""Checkpoints: whole, of this training, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from secateur.errors import InputError
from secateur.training.loop import finetune
from secateur.training.settings import FinetuneSettings
from training_cases import (
    SETTINGS,
    Stop,
    assert_equal,
    blobs,
    small_net,
    stop_after,
    variant,
)


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    path = tmp_path / "folder" / "checkpoint.safetensors"
    with pytest.raises(Stop):
        finetune(
            small_net(), blobs(), variant("adam"), checkpoint=path, on_step=stop_after(2)
        )  # fmt: skip
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing half-written
    return path


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_a_truncated_checkpoint_is_refused_and_changes_nothing(checkpoint, share):
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: int(len(whole) * share)])
    net = small_net(8)
    with pytest.raises(InputError, match="not a whole checkpoint"):
        finetune(net, blobs(), variant("adam"), checkpoint=checkpoint)
    assert_equal(net, small_net(8))


def test_what_a_kill_left_half_written_is_not_read(checkpoint):
    partial = checkpoint.with_name(f".{checkpoint.name}.partial")
    partial.write_bytes(b"half")
    undisturbed, resumed = small_net(), small_net()
    finetune(undisturbed, blobs(), variant("adam"))
    finetune(resumed, blobs(), variant("adam"), checkpoint=checkpoint)
    assert_equal(undisturbed, resumed)
    assert not partial.exists()


def test_a_checkpoint_of_something_else_is_refused(checkpoint):
    def refused(sentence: str, net=None, data=None, settings=None) -> None:
        with pytest.raises(InputError, match=sentence):
            finetune(
                net or small_net(), data or blobs(), settings or variant("adam"),
                checkpoint=checkpoint,
            )  # fmt: skip

    refused("written with learning_rate 0.01.* say 0.05", settings=variant("sgd"))
    refused("written with 70 samples, and the data set has 71", data=blobs(71))
    narrow = small_net()
    narrow[8] = nn.Linear(96, 4)
    refused(r"of another model: '8.bias' is \[3\] of float32 there and \[4\]", net=narrow)
    refused("of another model: '9.weight' is missing there", net=small_net().append(nn.PReLU()))
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, checkpoint)
    refused("not a checkpoint of this version")


def test_a_checkpoint_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "checkpoint"
    with pytest.raises(InputError, match="cannot write the checkpoint"):
        finetune(small_net(), blobs(), SETTINGS, checkpoint=path)


def test_tied_and_transient_tensors_are_in_the_checkpoint(tmp_path):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.embed.weight
            self.register_buffer("calls", torch.zeros(()), persistent=False)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            self.calls += self.training
            return self.head(self.embed(tokens) * (1 + 0.01 * self.calls))

    def tied() -> Tied:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return Tied()

    tokens = torch.randint(7, (40, 5), generator=torch.Generator().manual_seed(0))
    data = TensorDataset(tokens, (tokens + 1) % 7)
    settings = FinetuneSettings(epochs=2, batch_size=8, checkpoint_every=1, optimizer="adam")
    undisturbed, path = tied(), tmp_path / "checkpoint"
    finetune(undisturbed, data, settings)
    with pytest.raises(Stop):
        finetune(tied(), data, settings, checkpoint=path, on_step=stop_after(6))
    resumed = tied()
    finetune(resumed, data, settings, checkpoint=path)
    assert_equal(undisturbed, resumed)
    assert undisturbed.calls == 10 and resumed.head.weight is resumed.embed.weight

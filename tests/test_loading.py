"""Batches of data sets, devices."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from secateur.errors import InputError
from secateur.training.devices import device_of, resolve
from secateur.training.loading import batches, count_batches
from training_cases import (
    Images,
    blobs,
)


def samples(stream) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = zip(*stream, strict=True)
    return torch.cat(inputs), torch.cat([torch.as_tensor(target) for target in targets])


@pytest.mark.parametrize("seed", [None, 5])
def test_the_fast_path_gives_the_batches_of_the_slow_one(seed):
    fast, slow = blobs(), Images()
    for ours, theirs in zip(
        batches(fast, 16, seed, epoch=2), batches(slow, 16, seed, epoch=2), strict=True
    ):
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_batches_without_a_seed_are_in_order():
    data = blobs()
    parts = list(batches(data, 16))
    assert [len(targets) for _, targets in parts] == [16, 16, 16, 16, 6]
    assert torch.equal(samples(parts)[0], data.tensors[0])


def test_an_order_is_a_permutation_that_seed_and_epoch_give():
    data = TensorDataset(torch.arange(50)[:, None].float(), torch.arange(50))
    orders = {
        (seed, epoch): tuple(samples(batches(data, 7, seed, epoch))[1].tolist())
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    torch.rand(9)
    assert orders[1, 1] == tuple(samples(batches(data, 7, 1, 1))[1].tolist())


@pytest.mark.parametrize("start", [0, 1, 3, 5])
def test_start_leaves_out_batches_and_reads_none_of_their_samples(start):
    data = Images()
    whole = list(batches(data, 16, 4, 1))
    data.read.clear()
    rest = list(batches(data, 16, 4, 1, start=start))
    assert len(data.read) == max(0, 70 - 16 * start)
    assert len(rest) == 5 - start
    for ours, theirs in zip(rest, whole[start:], strict=True):
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_subsets_of_subsets_read_the_right_samples():
    data = blobs()
    outer = Subset(Subset(data, range(10, 60)), [3, 1, 40])
    for dataset in (outer, ConcatDataset([outer])):  # a concatenation goes the slow way
        inputs, targets = samples(batches(dataset, 2))
        assert torch.equal(inputs, data.tensors[0][[13, 11, 50]])
        assert torch.equal(targets, data.tensors[1][[13, 11, 50]])
    shuffled = samples(batches(outer, 2, seed=0))[1]
    assert sorted(shuffled.tolist()) == sorted(data.tensors[1][[13, 11, 50]].tolist())


def test_the_last_of_more_than_two_values_is_the_target():
    data = TensorDataset(torch.zeros(4, 1), torch.ones(4, 2), torch.arange(4))
    ((first, second), targets), _ = batches(data, 3)
    assert first.shape == (3, 1) and second.shape == (3, 2) and targets.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("samples", "size", "least", "expected"),
    [(33, 16, 1, 3), (33, 16, 2, 2), (34, 16, 2, 3), (32, 16, 2, 2), (1, 16, 2, 1)],
)
def test_a_last_batch_that_is_too_small_is_left_out(samples, size, least, expected):
    assert count_batches(samples, size, least) == expected
    data = TensorDataset(torch.zeros(samples, 1), torch.zeros(samples))
    assert len(list(batches(data, size, seed=0, least=least))) == expected


def test_data_that_cannot_be_read_is_refused():
    with pytest.raises(InputError, match="empty"):
        next(batches(TensorDataset(torch.zeros(0, 2), torch.zeros(0)), 4))
    with pytest.raises(InputError, match="no length"):
        next(batches((i for i in range(3)), 4))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="batch_size is 0"):
        next(batches(blobs(), 0))
    with pytest.raises(InputError, match=r"holds 1 value; expected \(input, target\)"):
        next(batches(TensorDataset(torch.zeros(4, 2)), 4))
    with pytest.raises(InputError, match="a sample of the list is a float"):
        next(batches([1.0, 2.0], 2))  # type: ignore[arg-type]


def test_devices():
    assert resolve("cpu") == torch.device("cpu")
    assert resolve("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device_of(nn.ReLU()) == torch.device("cpu")
    with pytest.raises(InputError, match="choose auto, cpu or cuda"):
        resolve("gpu")
    with pytest.raises(InputError, match="not supported"):
        resolve("meta")
    with pytest.raises(InputError, match="PyTorch sees"):
        resolve("cuda:99")


class Broken(Images):
    """One sample cannot be read, and one has a shape of its own."""

    def __getitem__(self, index: int):
        image, target = super().__getitem__(index)
        if index == 41:
            raise OSError("disk broken")
        return (image[:, :4] if index == 23 else image), target


@pytest.mark.parametrize("chosen", [None, range(20, 70)])
def test_a_sample_that_cannot_be_read_is_named_with_its_line(chosen):
    data = Broken() if chosen is None else Subset(Subset(Broken(), range(70)), chosen)
    message = r"sample 41 of the Broken: OSError: disk broken \(.*test_loading.py:\d+\)"
    with pytest.raises(InputError, match=message):
        list(batches(Subset(data, [i for i in range(len(data)) if i != 23 - 70 + len(data)]), 1))


def test_samples_of_different_shapes_are_named_with_them():
    message = r"samples 16 and 23 of the Broken have the shapes \[2, 6, 6\] and \[2, 4, 6\]"
    with pytest.raises(InputError, match=message):
        list(batches(Broken(), 16))
    assert len(list(batches(Subset(Broken(), range(30)), 1))) == 30  # one by one they are batches


def test_samples_that_make_no_batch_are_refused_with_the_reason():
    with pytest.raises(InputError, match="samples of the list make no batch: TypeError"):
        list(batches([(object(), 0), (object(), 1)], 2))  # type: ignore[arg-type]

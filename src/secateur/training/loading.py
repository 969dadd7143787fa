"""Batches of a map-style data set, in an order that a seed and an epoch give again.

Samples are tuples (input, target); of a longer tuple the last is the target. Data sets of
tensors (and subsets of them) are indexed a batch at a time instead of a sample at a time, and
``Collated`` ones make their batches themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset, Subset, TensorDataset, default_collate

from secateur.blame import told
from secateur.errors import InputError
from secateur.structure.inputs import as_arguments, map_tensors
from secateur.training.collating import Collated, SampleError, samples_at, under_subsets

Batch = tuple[Any, Any]


def batches(
    dataset: Dataset[Any],
    batch_size: int,
    seed: int | None = None,
    epoch: int = 0,
    start: int = 0,
    device: torch.device | str | None = None,
    least: int = 1,
) -> Iterator[Batch]:
    """(inputs, targets) of each batch; in the data set's order where ``seed`` is None.

    seed, epoch: give the order; the same two give the same order anywhere.
    start:       number of batches to leave out at the front; none of their samples is read.
    device:      where the batches go; they stay where they are without one.
    least:       a last batch of fewer samples is left out (BatchNorm cannot train on one).
    Errors: InputError for a data set without a length or samples, or a batch size below 1.
    """
    size = count_samples(dataset)
    number = count_batches(size, batch_size, least)
    order = None if seed is None else order_of(size, seed, epoch)
    read = _reader(dataset)
    for batch in range(start, number):
        first, last = batch * batch_size, min((batch + 1) * batch_size, size)
        index = slice(first, last) if order is None else order[first:last]
        inputs, targets = read(index)
        yield (inputs, targets) if device is None else (move(inputs, device), move(targets, device))


def count_samples(dataset: Dataset[Any]) -> int:
    """Number of samples. Errors: InputError where there is no length or no sample."""
    try:
        size = len(dataset)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError) as error:
        raise InputError(
            f"a {type(dataset).__name__} has no length; give a map-style data set, one with "
            "__len__ and __getitem__"
        ) from error
    if size == 0:
        raise InputError("the data set is empty; give one with at least one sample")
    return size


def count_batches(samples: int, batch_size: int, least: int = 1) -> int:
    """Number of batches of an epoch; see ``batches``. Errors: InputError for a size below 1."""
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; give at least 1")
    whole, rest = divmod(samples, batch_size)
    # A data set that is one small batch is never left out as a whole.
    return whole + (rest >= least or (whole == 0 and rest > 0))


def move(tree: Any, device: torch.device | str) -> Any:
    """The same tree with its tensors on ``device``."""
    if isinstance(tree, torch.Tensor):
        return tree.to(device, non_blocking=True)
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=True), tree)


def forward(model: nn.Module, inputs: Any) -> Any:
    """Call the model with one batch: a tensor, a tuple, a dict, or a pair (tuple, dict)."""
    if isinstance(inputs, torch.Tensor):
        return model(inputs)
    arguments, keywords = as_arguments(inputs)
    return model(*arguments, **keywords)


def resident(dataset: Dataset[Any], device: torch.device) -> Dataset[Any]:
    """A data set of tensors on the device where it fits easily; else the data set as it is.

    Moving it once spares a copy from the host for every batch of every epoch.
    """
    found = _tensors_of(dataset)
    if device.type != "cuda" or found is None:
        return dataset
    tensors, index = found
    free, _ = torch.cuda.mem_get_info(device)
    if sum(tensor.nbytes for tensor in tensors) > free // 4:
        return dataset
    moved = TensorDataset(*(tensor.to(device) for tensor in tensors))
    return moved if index is None else Subset(moved, index.tolist())


def stream_seed(*numbers: int) -> int:
    """A seed that differs for every sequence of numbers >= 0. Errors: InputError below 0."""
    if min(numbers) < 0:
        raise InputError(f"seed {numbers[0]} is negative; give a whole number from 0 up")
    high, low = np.random.SeedSequence(numbers).generate_state(2)
    return (int(high) << 31) ^ int(low)


def order_of(size: int, seed: int, epoch: int = 0) -> torch.Tensor:
    """int64 [size]: the numbers of the samples, in the order in which ``batches`` reads them."""
    generator = torch.Generator().manual_seed(stream_seed(seed, epoch))
    return torch.randperm(size, generator=generator)


def _reader(dataset: Dataset[Any]) -> Callable[[slice | torch.Tensor], Batch]:
    """A function that reads the samples of a slice or of an index."""
    whole = _whole(dataset)
    if isinstance(whole, Collated):
        return partial(_own_batch, whole, _chosen(dataset))
    found = _tensors_of(dataset)
    if found is None:
        return lambda index: _collated(dataset, index)
    tensors, chosen = found
    chosen = None if chosen is None else chosen.to(tensors[0].device)

    def read(index: slice | torch.Tensor) -> Batch:
        if isinstance(index, torch.Tensor):
            index = index.to(tensors[0].device)
        where = index if chosen is None else chosen[index]
        if isinstance(where, slice):
            return _split(tuple(tensor[where] for tensor in tensors))
        return _split(tuple(tensor.index_select(0, where) for tensor in tensors))

    return read


def _tensors_of(
    dataset: Dataset[Any],
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor | None] | None:
    """The tensors and the chosen samples of a data set of tensors; None for any other."""
    whole = _whole(dataset)
    # Exact types: a subclass may do anything in __getitem__.
    if type(whole) is TensorDataset and len({tensor.device for tensor in whole.tensors}) == 1:
        return whole.tensors, _chosen(dataset)
    return None


def _whole(dataset: Dataset[Any]) -> Dataset[Any]:
    """The data set under subsets."""
    return _whole(dataset.dataset) if type(dataset) is Subset else dataset


def _chosen(dataset: Dataset[Any]) -> torch.Tensor | None:
    """The numbers of its samples in the data set under subsets; None where it is that itself."""
    if type(dataset) is not Subset:
        return None
    index = torch.as_tensor(dataset.indices, dtype=torch.int64)
    inner = _chosen(dataset.dataset)
    return index if inner is None else inner[index]


def _own_batch(dataset: Collated, chosen: torch.Tensor | None, index: Any) -> Batch:
    where = _numbers(index)
    return _split(dataset.batch(where if chosen is None else chosen[where].tolist()))


def _collated(dataset: Dataset[Any], index: slice | torch.Tensor) -> Batch:
    dataset, numbers = under_subsets(dataset, _numbers(index))
    samples = samples_at(dataset, numbers)
    first = samples[0]
    if not isinstance(first, (tuple, list)):
        raise InputError(
            f"a sample of the {type(dataset).__name__} is a {type(first).__name__}; "
            "expected a tuple (input, target)"
        )
    try:
        columns = tuple(default_collate(samples))
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        raise _unlike(dataset, numbers, samples, error) from error
    return _split(columns)


def _unlike(
    dataset: Dataset[Any], numbers: Sequence[int], samples: Sequence[Any], error: Exception
) -> SampleError:
    """Why samples make no batch: the first whose shapes are not those of the first of all."""
    name, shapes = type(dataset).__name__, [_shapes(sample) for sample in samples]
    odd = next((place for place, found in enumerate(shapes) if found != shapes[0]), None)
    if odd is None:
        text = f"samples of the {name} make no batch: {told(error)}"
        return SampleError(text, dataset, numbers[0])
    return SampleError(
        f"samples {numbers[0]} and {numbers[odd]} of the {name} have the shapes {shapes[0]} and "
        f"{shapes[odd]}; give all samples one shape, or a DataLoader whose collate_fn pads them",
        dataset,
        numbers[odd],
    )


def _shapes(sample: Any) -> str:
    leaves = pytree.tree_leaves(sample)
    return ", ".join(str(list(leaf.shape)) for leaf in leaves if hasattr(leaf, "shape"))


def _numbers(index: slice | torch.Tensor) -> list[int]:
    return list(range(index.start, index.stop)) if isinstance(index, slice) else index.tolist()


def _split(columns: tuple[Any, ...]) -> Batch:
    if len(columns) < 2:
        raise InputError(
            f"a sample of the data set holds {len(columns)} value; expected (input, target)"
        )
    return (columns[0] if len(columns) == 2 else columns[:-1]), columns[-1]

"""Refuse data that would fail later and say less: no samples, NaN inputs, impossible labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves
from torch.utils.data import Dataset, Subset, TensorDataset

from secateur.errors import InputError
from secateur.protocols import Data
from secateur.structure.inputs import map_tensors
from secateur.training.collating import Collated, SampleError, samples_at

IGNORED = -100  # the label of positions that do not count, as in PyTorch
_MOST = 10_000  # samples read for their labels, where a data set does not keep them apart
_LOOKED_AT = 8  # samples read at once to see that they can be used


def splits(data: Data) -> Iterator[tuple[str, Dataset[Any]]]:
    """The splits that there are, with their names."""
    yield "train", data.train
    yield "val", data.val
    if data.test is not None:
        yield "test", data.test


@contextmanager
def named_splits(data: Data | None) -> Iterator[None]:
    """Errors: InputError in place of a SampleError of the block: which split the sample is of."""
    try:
        yield
    except SampleError as error:
        found = [] if data is None else splits(data)
        split = next((name for name, one in found if _holds(one, error)), None)
        if data is None or split is None:
            raise
        raise InputError(f"{data.name}: {split}: {error}") from error


def _holds(split: Dataset[Any], error: SampleError) -> bool:
    """Whether a split has the sample that an error is about."""
    numbers: Sequence[int] | None = None  # of its samples in the data set that is looked at; all
    inside = split
    while isinstance(inside, Collated) or type(inside) is Subset:
        if type(inside) is Subset:
            own = inside.indices
            numbers = own if numbers is None else [own[number] for number in numbers]
        inside = inside.dataset
    known = numbers is None or error.number is None or error.number in numbers
    return inside is error.dataset and known


def check_samples(data: Data) -> None:
    """Errors: InputError for an empty split, samples that are no pairs or cannot be read, inputs
    that are not finite.

    Data sets of tensors are checked whole, others by their first samples.
    """
    with named_splits(data):
        for split, dataset in splits(data):
            _check_split(f"{data.name}: {split}", dataset)


def _check_split(where: str, dataset: Dataset[Any]) -> None:
    size = len(dataset)  # type: ignore[arg-type]
    if size == 0:
        raise InputError(f"{where} is empty; give at least one sample")
    if type(dataset) is TensorDataset:
        _check_sample(where, 0, dataset[0])
        for tensor in dataset.tensors[:-1]:
            check_finite(where, tensor)
        return
    for index in range(min(_LOOKED_AT, size)):
        _check_sample(where, index, samples_at(dataset, [index])[0])


def _check_sample(where: str, index: int, sample: object) -> None:
    if not isinstance(sample, (tuple, list)) or len(sample) < 2:
        size = f" of {len(sample)}" if isinstance(sample, (tuple, list)) else ""
        raise InputError(
            f"{where} sample {index} is a {type(sample).__name__}{size}; expected (input, target)"
        )
    leaves = tree_leaves(list(sample[:-1]))
    wrong = next((leaf for leaf in leaves if not isinstance(leaf, torch.Tensor)), None)
    if not leaves or wrong is not None:
        raise InputError(
            f"{where} sample {index} has the input {type(wrong).__name__}; expected a tensor, or "
            "a tuple or dict of tensors: give the data set a transform that makes them"
        )
    for leaf in leaves:
        broken = _not_finite(leaf)
        if broken:
            raise InputError(_not_finite_message(f"{where} sample {index}", broken))


def check_finite(where: str, inputs: Any, numbers: Sequence[int] | None = None) -> None:
    """Errors: InputError for the first sample of a batch whose input is NaN or infinite.

    inputs: a tree of tensors [N, ...]. numbers: of the samples; their places without.
    """

    def check(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.sum())):
            # A sum can overflow where every value is finite: look at each before refusing.
            rows = torch.isfinite(tensor.flatten(1) if tensor.dim() > 1 else tensor.reshape(-1, 1))
            for place in (~rows.all(dim=1)).nonzero().flatten()[:1].tolist():
                sample = f"sample {place}"
                if numbers is not None:
                    alike = len(numbers) == len(rows)  # a collate_fn may make of them what it likes
                    sample = f"sample {numbers[place]}" if alike else "a batch"
                broken = int((~rows[place]).sum())
                raise InputError(_not_finite_message(f"{where} {sample}", broken))
        return tensor

    map_tensors(check, inputs)


def _not_finite(tensor: torch.Tensor) -> int:
    return int((~torch.isfinite(tensor)).sum()) if tensor.is_floating_point() else 0


def _not_finite_message(where: str, broken: int) -> str:
    return (
        f"{where} has {broken} values that are NaN or infinite in its input; "
        "clean or leave out such samples"
    )


def check_labels(data: Data, outputs: int) -> None:
    """See ``secateur.sources.data.check_labels``."""
    # One output is the logit of the second of two classes.
    last = max(outputs - 1, 1)
    for split, dataset in splits(data):
        labels = labels_of(dataset)
        if labels is None:
            labels = _first_labels(dataset)
        if labels is None or labels.is_floating_point() or labels.numel() == 0:
            continue
        labels = labels.long()
        wrong = ((labels < 0) | (labels > last)) & (labels != IGNORED)
        if not bool(wrong.any()):
            continue
        place = wrong.nonzero()[0]
        label = int(labels[tuple(place)])
        remedy = "build the model with more outputs, or mend the label"
        if int(labels[labels != IGNORED].min()) == 1 and int(labels.max()) == outputs:
            remedy = "the labels seem to start at 1: subtract 1 from each"
        raise InputError(
            f"{data.name}: {split} sample {int(place[0])} has the label {label}, and the model has "
            f"{outputs} outputs, so that labels go from 0 to {last}; {remedy}"
        )


def labels_of(dataset: Dataset[Any]) -> torch.Tensor | None:
    """Targets of all samples [N, ...] where the data set keeps them apart from the inputs."""
    if type(dataset) is TensorDataset:
        return dataset.tensors[-1]
    if type(dataset) is Subset:
        inner = labels_of(dataset.dataset)
        if inner is None:
            return None
        return inner[torch.as_tensor(list(dataset.indices), dtype=torch.int64)]
    targets = getattr(dataset, "targets", None)  # the name that torchvision's data sets use
    if getattr(dataset, "target_transform", None) is not None or targets is None:
        return None
    if not isinstance(targets, (torch.Tensor, np.ndarray, list, tuple)):
        return None
    if len(targets) != len(dataset):  # type: ignore[arg-type]
        return None
    return _as_labels(targets)


def _first_labels(dataset: Dataset[Any]) -> torch.Tensor | None:
    size = min(len(dataset), _MOST)  # type: ignore[arg-type]
    return _as_labels([samples_at(dataset, [index])[0][-1] for index in range(size)])


def _as_labels(targets: Any) -> torch.Tensor | None:
    """One tensor, or None for targets that are no numbers or differ in shape (boxes, texts)."""
    try:
        if isinstance(targets, (list, tuple)) and isinstance(targets[0], torch.Tensor):
            return torch.stack(list(targets))
        return torch.as_tensor(np.asarray(targets))
    except (TypeError, ValueError, RuntimeError):
        return None

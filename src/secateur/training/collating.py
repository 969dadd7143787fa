"""Data sets whose batches are made by a function of their own, or whose samples are mappings.

Inside Secateur a sample is (input, target). A ``Collated`` data set makes it so: its function gets
the samples as they are, and of a mapping (as transformers' data sets and collators give them) the
labels are the target and all else is the input, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset, Subset

from secateur.blame import reported, told
from secateur.errors import InputError, SecateurError
from secateur.structure.inputs import is_batched, map_tensors

LABELS = ("labels", "label", "targets", "target")  # the first of them that a mapping has
FIRST = 8  # samples of each data set that are looked at to see whether their shapes differ
Shapes = tuple[tuple[int, ...], ...]


class SampleError(InputError):
    """A sample that cannot be read, or put into a batch with others.

    dataset: the innermost one; number: of the sample in it, or None where it is not known.
    """

    def __init__(self, text: str, dataset: Dataset[Any], number: int | None) -> None:
        super().__init__(text)
        self.dataset, self.number = dataset, number

    def __reduce__(self) -> tuple[Any, ...]:
        return InputError, (str(self),)  # data sets do not travel between processes


@dataclass(frozen=True, eq=False)
class Collated(Dataset[Any]):
    """A data set and the function that makes a batch of a list of its samples.

    rulers: samples that take part in every batch and are cut off what is made of it. A function
            that pads to the longest sample then pads all batches to one length.
    shapes: of one sample's inputs, where known; a batch of others is refused.
    """

    dataset: Dataset[Any]
    collate: Callable[[list[Any]], Any]
    rulers: tuple[Any, ...] = ()
    shapes: Shapes | None = None

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """(input, target): a batch of this sample alone, without its dimension of samples."""
        return map_tensors(lambda t: t[0] if t.dim() else t, self.batch([index]))

    def batch(self, numbers: Sequence[int]) -> tuple[Any, ...]:
        """(inputs, ..., targets) of some samples.

        Errors: InputError for what holds no targets, for inputs without a dimension of samples,
        and for inputs of other shapes than known.
        """
        samples = samples_at(self.dataset, numbers)
        with reported("the collate_fn"):
            columns = columns_of(self.collate([*samples, *self.rulers]))
        whole = len(samples) + len(self.rulers)
        if not any(is_batched(t) and len(t) == whole for t in pytree.tree_leaves(columns[:-1])):
            raise InputError(
                f"the collate_fn made no input whose first dimension is that of the {whole} "
                "samples; expected tensors of whole batches"
            )
        if self.rulers:
            columns = map_tensors(
                lambda t: t[: len(samples)] if is_batched(t) and len(t) == whole else t, columns
            )
        found = _shapes(columns)
        if self.shapes is not None and found != self.shapes:
            raise InputError(
                f"the collate_fn made inputs of {_told(found)} for each sample, and of "
                f"{_told(self.shapes)} for others; pad all batches to one length"
            )
        return columns


def levelled(sets: Mapping[str, Dataset[Any]]) -> dict[str, Dataset[Any]]:
    """The same data sets; collated ones give inputs of one shape, that of their longest samples.

    Where the first samples differ in shape, all samples of all sets are read once to find the
    longest. Errors: InputError for batches that hold no targets.
    """
    own = {name: one for name, one in sets.items() if isinstance(one, Collated) and len(one)}
    if not own:
        return dict(sets)
    first = {
        _shapes(one.batch([number]))
        for one in own.values()
        for number in range(min(FIRST, len(one)))
    }
    rulers = tuple(_longest(own.values())) if len(first) > 1 else ()
    own = {name: replace(one, rulers=rulers) for name, one in own.items()}
    shapes = _shapes(next(iter(own.values())).batch([0]))
    return {**sets, **{name: replace(one, shapes=shapes) for name, one in own.items()}}


def _longest(sets: Iterable[Collated]) -> list[Any]:
    """Samples among which every size of every input is the largest there is."""
    most: dict[tuple[int, int], tuple[int, Collated, int]] = {}
    for one in sets:
        for number in range(len(one)):
            for leaf, shape in enumerate(_shapes(one.batch([number]))):
                for dimension, size in enumerate(shape):
                    known = most.get((leaf, dimension))
                    if known is None or size > known[0]:
                        most[leaf, dimension] = size, one, number
    places = dict.fromkeys((one, number) for _, one, number in most.values())
    return [samples_at(one.dataset, [number])[0] for one, number in places]


def samples_at(dataset: Dataset[Any], numbers: Sequence[int]) -> list[Any]:
    """Some samples, in one call where the data set has one for it.

    Errors: SampleError, with file and line, for what the data set raises.
    """
    dataset, numbers = under_subsets(dataset, numbers)
    fetch = getattr(dataset, "__getitems__", None)
    found: list[Any] = []
    try:
        if fetch:
            return fetch(list(numbers))
        for number in numbers:
            found.append(dataset[number])
        return found
    except SecateurError:
        raise
    except Exception as error:
        number = None if fetch else numbers[len(found)]
        where = f"one of the {len(numbers)} samples from {numbers[0]}"
        where = where if number is None else f"sample {number}"
        name = type(dataset).__name__
        raise SampleError(f"{where} of the {name}: {told(error)}", dataset, number) from error


def under_subsets(
    dataset: Dataset[Any], numbers: Sequence[int]
) -> tuple[Dataset[Any], Sequence[int]]:
    """The data set under ``Subset``s, and the numbers of the same samples in it."""
    while type(dataset) is Subset:
        inside = dataset.indices
        dataset, numbers = dataset.dataset, [inside[number] for number in numbers]
    return dataset, numbers


def columns_of(batch: Any) -> tuple[Any, ...]:
    """(inputs, ..., targets) of what a collate function returned.

    Errors: InputError for what is no tuple of two or more, and no mapping with labels.
    """
    if isinstance(batch, Mapping):
        name = next((name for name in LABELS if name in batch), None)
        if name is None:
            raise InputError(
                f"a batch is a mapping of {', '.join(map(str, batch)) or 'nothing'}; expected one "
                f"of {', '.join(LABELS)} among them"
            )
        return {key: value for key, value in batch.items() if key != name}, batch[name]
    if isinstance(batch, (tuple, list)) and len(batch) > 1:
        return tuple(batch)
    size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
    raise InputError(
        f"the collate_fn made a {type(batch).__name__}{size}; expected (inputs, targets), or a "
        f"mapping with {LABELS[0]}"
    )


def _shapes(columns: tuple[Any, ...]) -> Shapes:
    """Shapes of the inputs, without the dimension of samples."""
    leaves = pytree.tree_leaves(columns[:-1])
    return tuple(tuple(t.shape[1:]) for t in leaves if isinstance(t, torch.Tensor))


def _told(shapes: Shapes) -> str:
    return ", ".join(str(shape) for shape in shapes)

"""From a data spec to checked Data."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
)
from torch.utils.data._utils.collate import default_convert

from secateur.blame import reported
from secateur.errors import InputError
from secateur.protocols import Data
from secateur.sources.data import DATA_SOURCES
from secateur.sources.data._checking import check_samples, splits
from secateur.sources.functions import FORMS, load_function
from secateur.training.collating import LABELS, Collated, SampleError, levelled, samples_at


def load_data(
    spec: str,
    folder: Path,
    seed: int,
    limit: int | None,
    options: Mapping[str, Any],
    arguments: Mapping[str, Any],
) -> Data:
    """See ``secateur.sources.data.load_data``; options are those that were given."""
    _check_options(limit, options)
    name, _, target = spec.partition(":")
    if name in DATA_SOURCES.names():
        source = DATA_SOURCES.get(name)
        if arguments:
            raise InputError(f"{name} takes no arguments; they are for functions of your own")
        _refuse_unused(name, options, source)
        data = source(target, folder, seed, **options)
    else:
        function = load_function(spec, folder, [*DATA_SOURCES.names(), *FORMS])
        result = function(**arguments, **options)
        with reported(spec):  # samples are made by the user's code
            data = _as_data(spec, result)
    with reported(spec):
        check_samples(data)
    return data if limit is None else _limited(data, limit)


def _check_options(limit: int | None, options: Mapping[str, Any]) -> None:
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; give at least 1")
    if options.get("image_size", 1) < 1:
        raise InputError(f"image_size is {options['image_size']}; give a number of pixels")
    if options.get("channels", 1) not in (1, 3):
        raise InputError(f"channels is {options['channels']}; give 1 (grey) or 3 (colour)")
    if not 0 < options.get("val_share", 0.5) < 1:
        raise InputError(f"val_share is {options['val_share']}; give a share between 0 and 1")


def _refuse_unused(name: str, options: Mapping[str, Any], source: Callable[..., Data]) -> None:
    known = [
        parameter.name
        for parameter in inspect.signature(source).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    for option in options:
        if option not in known:
            raise InputError(f"{name} has no use for {option}; it takes {', '.join(known)}, limit")


def _as_data(spec: str, result: object) -> Data:
    if isinstance(result, Data):
        return dataclasses.replace(result, **datasets_of(spec, dict(splits(result))))
    if isinstance(result, (tuple, list)) and len(result) in (2, 3):
        sets = datasets_of(spec, dict(zip(_SPLITS, result, strict=False)))
        train = sets["train"]
        # torchvision's data sets name theirs
        classes = getattr(train.dataset if isinstance(train, Collated) else train, "classes", None)
        number = len(classes) if isinstance(classes, (list, tuple)) else None
        return Data(spec, sets["train"], sets["val"], sets.get("test"), classes=number)
    raise InputError(
        f"{spec} returned {_described(result)}; expected secateur's Data, or (train, val) or "
        "(train, val, test) of data sets"
    )


_SPLITS = ("train", "val", "test")


def datasets_of(spec: str, given: Mapping[str, object]) -> dict[str, Dataset[Any]]:
    """The data set of each split; of a DataLoader its own, as the order is made anew.

    A collate_fn of its own goes on making the batches, and samples that are mappings with labels
    become (input, target). Errors: InputError for what has no length or no order.
    """
    return levelled({split: _dataset_of(spec, split, one) for split, one in given.items()})


def _dataset_of(spec: str, split: str, given: object) -> Dataset[Any]:
    where = f"{spec}: {split}"
    collate: Callable[[list[Any]], Any] | None = None
    if isinstance(given, DataLoader):
        if given.collate_fn not in (default_collate, default_convert):
            collate = given.collate_fn
        given = given.dataset
    if isinstance(given, IterableDataset):
        raise InputError(
            f"{where} is an IterableDataset, which has no order to repeat; give a map-style data "
            "set, one with __len__ and __getitem__"
        )
    if not hasattr(given, "__getitem__") or not hasattr(given, "__len__"):
        raise InputError(
            f"{where} is {_described(given)}; expected a data set with __len__ and __getitem__, "
            "whose samples are (input, target)"
        )
    dataset: Dataset[Any] = given  # type: ignore[assignment]
    try:
        if collate is None and _told_by_name(dataset):
            collate = default_collate
    except SampleError as error:
        raise InputError(f"{where}: {error}") from error
    return dataset if collate is None else Collated(dataset, collate)


def _told_by_name(dataset: Dataset[Any]) -> bool:
    """Whether samples are mappings with labels, as those of transformers' data sets are."""
    if type(dataset) is TensorDataset or not len(dataset):  # type: ignore[arg-type]
        return False
    first = samples_at(dataset, [0])[0]
    return isinstance(first, Mapping) and any(name in first for name in LABELS)


def _described(result: object) -> str:
    if isinstance(result, (tuple, list)):
        return f"a {type(result).__name__} of {len(result)}"
    return "None" if result is None else f"a {type(result).__name__}"


def _limited(data: Data, limit: int) -> Data:
    parts = {split: _first(dataset, limit) for split, dataset in splits(data)}
    return dataclasses.replace(data, **parts)


def _first(dataset: Dataset[Any], limit: int) -> Dataset[Any]:
    if type(dataset) is TensorDataset:
        return TensorDataset(*(tensor[:limit] for tensor in dataset.tensors))
    size = len(dataset)  # type: ignore[arg-type]
    return dataset if size <= limit else Subset(dataset, range(limit))

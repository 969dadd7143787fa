"""Data by spec; one file here is one source (``digits``), found by the registry.

A source is a function of what stands after the colon, the recipe's folder and the seed, and of
those options (path, image_size, channels, val_share) that it understands:

    @data_source("digits")
    def digits(
        target: str, folder: Path, seed: int, *, image_size: int | None = None, ...
    ) -> Data: ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.registry import Registry

if TYPE_CHECKING:
    from secateur.protocols import Data

DataSource = Callable[..., "Data"]

DATA_SOURCES: Registry[DataSource] = Registry("data source", package="secateur.sources.data")
data_source = DATA_SOURCES.register


def load_data(
    spec: str,
    folder: Path = Path(),
    seed: int = 0,
    *,
    path: str | Path | None = None,
    limit: int | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    val_share: float | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Data:
    """The data that ``spec`` names, split and checked; the same for the same seed.

    spec:       ``digits``, ``fashion-mnist``, ``imagefolder:DIR``, ``package.module:function`` or
                ``file.py:function``. A function returns Data, or (train, val) or (train, val,
                test) of data sets or DataLoaders.
    folder:     the recipe's folder; relative paths are relative to it.
    path:       where the files are, instead of after the colon.
    limit:      keep the first samples of each split.
    image_size: height and width to resize images to. channels: 1 or 3.
    val_share:  share of the training samples that is held out.
    arguments:  keywords of the user's function.
    Errors: InputError; for an option that the source has no use for, too.
    """
    from secateur.sources.data import _loading

    options = {"path": path, "image_size": image_size, "channels": channels}
    options["val_share"] = val_share
    given = {name: value for name, value in options.items() if value is not None}
    return _loading.load_data(spec, Path(folder), seed, limit, given, arguments or {})


def check_labels(data: Data, outputs: int) -> None:
    """Errors: InputError naming the first label that a model with ``outputs`` outputs cannot have.

    Labels are read from the data set where it keeps them, and else from its first 10,000 samples.
    Labels that are floats are values and not checked; -100 is PyTorch's mark for no label.
    """
    from secateur.sources.data import _checking

    _checking.check_labels(data, outputs)

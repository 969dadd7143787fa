"""``digits``: 1,797 handwritten digits of 8×8 pixels that come with scikit-learn."""

from __future__ import annotations

from pathlib import Path

import torch

from secateur.errors import InputError
from secateur.protocols import Data
from secateur.sources.data import data_source
from secateur.sources.data._images import image_set
from secateur.sources.data._splitting import stratified
from secateur.sources.importing import require

_TEST_SHARE = 1 / 6
_BRIGHTEST = 16.0  # pixels are whole numbers from 0 to 16


@data_source("digits")
def digits(
    target: str,
    folder: Path,
    seed: int,
    *,
    image_size: int | None = None,
    channels: int = 1,
    val_share: float = 1 / 6,
) -> Data:
    """Handwritten digits of scikit-learn: 1×8×8 in [0, 1], 10 classes, no download.

    A sixth is the test split; ``val_share`` is taken of the rest; both by the seed.
    Errors: InputError without scikit-learn.
    """
    if target:
        raise InputError(f"'digits:{target}' is not a source; write 'digits'")
    datasets = require("sklearn.datasets", "'digits'", "pip install scikit-learn")
    found = datasets.load_digits()
    images = torch.from_numpy(found.images).float().div_(_BRIGHTEST).unsqueeze(1)
    labels = torch.from_numpy(found.target).long()
    test, rest = stratified(labels, [_TEST_SHARE], seed)
    val, train = (rest[part] for part in stratified(labels[rest], [val_share], seed))
    parts = [image_set(images[i], labels[i], image_size, channels) for i in (train, val, test)]
    return Data("digits", *parts, classes=10)

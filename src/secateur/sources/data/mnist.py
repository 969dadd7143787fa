"""``mnist``: 70,000 grey images of handwritten digits, from IDX files on disk or from a URL."""

from __future__ import annotations

from pathlib import Path

from secateur.protocols import Data
from secateur.sources.data import data_source
from secateur.sources.data._idx_set import IdxSet, load

MNIST = IdxSet("mnist", 0.1307, 0.3081)


@data_source("mnist")
def mnist(
    target: str,
    folder: Path,
    seed: int,
    *,
    path: str | Path | None = None,
    image_size: int | None = None,
    channels: int = 1,
    val_share: float = 1 / 12,
) -> Data:
    """Handwritten digits of LeCun, Cortes and Burges: 1×28×28, 10 classes; a folder, or a URL.

    ``mnist:DIR`` (or ``path``) reads the four IDX files of a folder, ``mnist:https://…`` downloads
    them once. ``val_share`` of the training images is held out by the seed; test is the official
    one. Errors: InputError.
    """
    return load(MNIST, target, folder, seed, path, image_size, channels, val_share)

"""``fashion-mnist``: 70,000 grey images of clothes, from IDX files on disk or from a URL."""

from __future__ import annotations

from pathlib import Path

from secateur.protocols import Data
from secateur.sources.data import data_source
from secateur.sources.data._idx_set import IdxSet, load

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FASHION = IdxSet("fashion-mnist", 0.2860, 0.3530, DEBIAN, "dataset-fashion-mnist")


@data_source("fashion-mnist")
def fashion_mnist(
    target: str,
    folder: Path,
    seed: int,
    *,
    path: str | Path | None = None,
    image_size: int | None = None,
    channels: int = 1,
    val_share: float = 1 / 12,
) -> Data:
    """Clothes of Zalando: 1×28×28, 10 classes; from Debian's package, a folder, or a URL.

    ``fashion-mnist`` reads Debian's dataset-fashion-mnist, ``fashion-mnist:DIR`` (or ``path``)
    the four IDX files of a folder, ``fashion-mnist:https://…`` downloads them once.
    ``val_share`` of the 60,000 training images is held out by the seed (5,000 by default); test
    is the official one. Errors: InputError.
    """
    return load(FASHION, target, folder, seed, path, image_size, channels, val_share)

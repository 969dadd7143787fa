"""``fashion-mnist``: 70,000 grey images of clothes, from IDX files on disk or from a URL."""

from __future__ import annotations

from pathlib import Path

import torch

from secateur.errors import InputError
from secateur.protocols import Data
from secateur.sources.data import data_source
from secateur.sources.data._downloading import cache_folder, download
from secateur.sources.data._idx import IMAGES, LABELS, read_idx
from secateur.sources.data._images import image_set
from secateur.sources.data._splitting import stratified

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_FILES = {
    "train-images-idx3-ubyte": IMAGES,
    "train-labels-idx1-ubyte": LABELS,
    "t10k-images-idx3-ubyte": IMAGES,
    "t10k-labels-idx1-ubyte": LABELS,
}
_MEAN, _STD = 0.2860, 0.3530  # of the training pixels, as they are usually normalised
_CLASSES = 10


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
    if target and path is not None:
        raise InputError(f"'fashion-mnist:{target}' and path {path} both say where; give one")
    place = target or (str(path) if path is not None else "")
    if place.startswith(("http://", "https://")):
        where = _downloaded(place.rstrip("/"))
    else:
        where = (folder / Path(place).expanduser()).resolve() if place else DEBIAN
    files = [_find(where, name) for name in _FILES]
    values = [read_idx(file, _FILES[name]) for file, name in zip(files, _FILES, strict=True)]
    images, labels = _pair(values[0], values[1], files[0])
    test_images, test_labels = _pair(values[2], values[3], files[2])
    val, train = stratified(labels, [val_share], seed)
    return Data(
        "fashion-mnist",
        image_set(images[train], labels[train], image_size, channels),
        image_set(images[val], labels[val], image_size, channels),
        image_set(test_images, test_labels, image_size, channels),
        classes=_CLASSES,
    )


def _find(where: Path, name: str) -> Path:
    for file in (where / name, where / f"{name}.gz"):
        if file.is_file():
            return file
    raise InputError(
        f"fashion-mnist: there is no {name}[.gz] in {where}; do one of three things: "
        "'apt install dataset-fashion-mnist', or give the folder of the four IDX files "
        "('fashion-mnist:DIR'), or the URL of one ('fashion-mnist:https://…')"
    )


def _downloaded(url: str) -> Path:
    where = cache_folder("fashion-mnist", url)
    for name, magic in _FILES.items():
        file = where / f"{name}.gz"
        if not file.is_file():
            download(f"{url}/{name}.gz", file, lambda path, magic=magic: read_idx(path, magic))
    return where


def _pair(
    images: torch.Tensor, labels: torch.Tensor, file: Path
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised images [N, 1, h, w] and labels [N]."""
    if len(images) != len(labels):
        raise InputError(
            f"{file} has {len(images)} images for {len(labels)} labels; get the files anew"
        )
    return images.float().div_(255).sub_(_MEAN).div_(_STD).unsqueeze(1), labels.long()

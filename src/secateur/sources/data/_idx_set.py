"""Four IDX files, in which MNIST and what took its place are handed out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from secateur.errors import InputError
from secateur.protocols import Data
from secateur.sources.data._downloading import cache_folder, download
from secateur.sources.data._idx import IMAGES, LABELS, read_idx
from secateur.sources.data._images import image_set
from secateur.sources.data._splitting import stratified

FILES = {
    "train-images-idx3-ubyte": IMAGES,
    "train-labels-idx1-ubyte": LABELS,
    "t10k-images-idx3-ubyte": IMAGES,
    "t10k-labels-idx1-ubyte": LABELS,
}
CLASSES = 10


@dataclass(frozen=True)
class IdxSet:
    """One such data set. mean, std: of the training pixels, as they are usually normalised.

    place: where it lies without another word, if anywhere; package: what would put it there.
    """

    name: str
    mean: float
    std: float
    place: Path | None = None
    package: str = ""


def load(
    kind: IdxSet,
    target: str,
    folder: Path,
    seed: int,
    path: str | Path | None,
    image_size: int | None,
    channels: int,
    val_share: float,
) -> Data:
    """Images 1×28×28 and their classes; ``target`` or ``path`` is a folder or a URL.

    ``val_share`` of the training images is held out by the seed; test is the official one.
    Errors: InputError.
    """
    if target and path is not None:
        raise InputError(f"'{kind.name}:{target}' and path {path} both say where; give one")
    place = target or (str(path) if path is not None else "")
    if place.startswith(("http://", "https://")):
        where = _downloaded(kind, place.rstrip("/"))
    elif place:
        where = (folder / Path(place).expanduser()).resolve()
    elif kind.place is not None:
        where = kind.place
    else:
        raise InputError(f"{kind.name} has no place of its own: {_ways(kind)}")
    files = [_find(kind, where, name) for name in FILES]
    values = [read_idx(file, FILES[name]) for file, name in zip(files, FILES, strict=True)]
    images, labels = _pair(kind, values[0], values[1], files[0])
    test_images, test_labels = _pair(kind, values[2], values[3], files[2])
    val, train = stratified(labels, [val_share], seed)
    return Data(
        kind.name,
        image_set(images[train], labels[train], image_size, channels),
        image_set(images[val], labels[val], image_size, channels),
        image_set(test_images, test_labels, image_size, channels),
        classes=CLASSES,
    )


def _find(kind: IdxSet, where: Path, name: str) -> Path:
    for file in (where / name, where / f"{name}.gz"):
        if file.is_file():
            return file
    raise InputError(f"{kind.name}: there is no {name}[.gz] in {where}; {_ways(kind)}")


def _ways(kind: IdxSet) -> str:
    ways = [f"'apt install {kind.package}'"] if kind.package else []
    ways.append(f"give the folder of the four IDX files ('{kind.name}:DIR')")
    ways.append(f"give the URL of one ('{kind.name}:https://…')")
    return f"do one of {len(ways)} things: {', or '.join(ways)}"


def _downloaded(kind: IdxSet, url: str) -> Path:
    where = cache_folder(kind.name, url)
    for name, magic in FILES.items():
        file = where / f"{name}.gz"
        if not file.is_file():
            download(f"{url}/{name}.gz", file, lambda path, magic=magic: read_idx(path, magic))
    return where


def _pair(
    kind: IdxSet, images: torch.Tensor, labels: torch.Tensor, file: Path
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised images [N, 1, h, w] and labels [N]."""
    if len(images) != len(labels):
        raise InputError(
            f"{file} has {len(images)} images for {len(labels)} labels; get the files anew"
        )
    return images.float().div_(255).sub_(kind.mean).div_(kind.std).unsqueeze(1), labels.long()

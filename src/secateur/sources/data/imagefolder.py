"""``imagefolder:DIR``: images in one folder per class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from secateur.errors import InputError
from secateur.protocols import Data
from secateur.sources.data import data_source
from secateur.sources.data._splitting import shuffled, stratified
from secateur.sources.importing import require

_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"))
_VAL = ("val", "valid", "validation")
# Mean and deviation of ImageNet, per colour and, for grey, of their mean.
_NORMAL = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.449,), (0.226,))}


@data_source("imagefolder")
def imagefolder(
    target: str,
    folder: Path,
    seed: int,
    *,
    path: str | Path | None = None,
    image_size: int = 224,
    channels: int = 3,
    val_share: float = 0.2,
) -> Data:
    """Images of a folder, imagefolder:DIR, with one folder per class.

    DIR/train with DIR/val and DIR/test where they exist, or else classes right in DIR. What is
    missing is split off by the seed: val from train by ``val_share``, and, where classes are right
    in DIR, a test split of the same share. The order is mixed by the seed. The shorter side is
    resized to ``image_size``, the centre cut out, and ImageNet's mean and deviation taken off.
    Errors: InputError.
    """
    if bool(target) == (path is not None):
        raise InputError("imagefolder wants one folder; write 'imagefolder:DIR', or give path")
    root = (folder / Path(target or str(path)).expanduser()).resolve()
    require("PIL.Image", f"'imagefolder:{root}'", "pip install pillow")
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; imagefolder wants one folder per class in it")

    def images(files: list[Path], labels: torch.Tensor, order: torch.Tensor) -> ImageFiles:
        chosen = [files[index] for index in order.tolist()]
        return ImageFiles(chosen, labels[order], image_size, channels)

    train_root = root / "train"
    names = _classes(train_root if train_root.is_dir() else root)
    if not train_root.is_dir():
        if val_share >= 0.5:
            raise InputError(f"val_share is {val_share}, twice, for val and test; give below 0.5")
        files, labels = _listing(root, names)
        val, test, train = stratified(labels, [val_share, val_share], seed)
        parts = [images(files, labels, order) for order in (train, val, test)]
        return Data(root.name, *parts, classes=len(names))

    generator = torch.Generator().manual_seed(seed)
    read: dict[str, ImageFiles] = {}
    for split, candidates in {"train": ("train",), "val": _VAL, "test": ("test",)}.items():
        place = next((root / name for name in candidates if (root / name).is_dir()), None)
        if place is not None:
            files, labels = _listing(place, names)
            order = shuffled(torch.arange(len(files)), generator)
            read[split] = images(files, labels, order)
    if "val" not in read:
        whole = read["train"]
        val, train = stratified(whole.targets, [val_share], seed)
        read["val"] = images(whole.files, whole.targets, val)
        read["train"] = images(whole.files, whole.targets, train)
    return Data(root.name, read["train"], read["val"], read.get("test"), classes=len(names))


class ImageFiles(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Samples (image float [channels, size, size], label []) of image files, read when asked for.

    Errors: InputError naming a file that cannot be read.
    """

    def __init__(self, files: list[Path], targets: torch.Tensor, size: int, channels: int) -> None:
        self.files = files
        self.targets = targets
        self.size = size
        self.channels = channels
        mean, deviation = _NORMAL[channels]
        self._mean = torch.tensor(mean).view(-1, 1, 1)
        self._deviation = torch.tensor(deviation).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = torch.from_numpy(self._pixels(self.files[index]))
        image = pixels.permute(2, 0, 1).float().div_(255)
        return image.sub_(self._mean).div_(self._deviation), self.targets[index]

    def _pixels(self, file: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """uint8 [size, size, channels]."""
        from PIL import Image

        try:
            with Image.open(file) as image:
                grey_or_colour = image.convert("RGB" if self.channels == 3 else "L")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{file} cannot be read as an image: {error}; remove it") from error
        width, height = grey_or_colour.size
        scale = self.size / min(width, height)
        width, height = (max(self.size, round(side * scale)) for side in (width, height))
        resized = grey_or_colour.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        cut = resized.crop((left, top, left + self.size, top + self.size))
        return np.array(cut, dtype=np.uint8).reshape(self.size, self.size, self.channels)


def _classes(root: Path) -> list[str]:
    """Names of the class folders, sorted; a class's number is its place."""
    names = sorted(place.name for place in root.iterdir() if _is_shown(place) and place.is_dir())
    if not names:
        raise InputError(f"{root} has no folders; imagefolder wants one folder per class in it")
    return names


def _listing(root: Path, names: list[str]) -> tuple[list[Path], torch.Tensor]:
    """Image files, sorted by class and name, and the numbers of their classes."""
    foreign = [name for name in _classes(root) if name not in names]
    if foreign:
        raise InputError(
            f"{root} has the class {foreign[0]!r}, which train does not have; "
            f"its classes are {', '.join(names)}"
        )
    files: list[Path] = []
    labels: list[int] = []
    for number, name in enumerate(names):
        found = [file for file in sorted((root / name).rglob("*")) if _is_image(file)]
        files += found
        labels += [number] * len(found)
    if not files:
        raise InputError(
            f"{root} has no images in its folders {', '.join(names[:8])}; "
            f"images end with {', '.join(sorted(_SUFFIXES))}"
        )
    return files, torch.tensor(labels)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES and _is_shown(file) and file.is_file()


def _is_shown(place: Path) -> bool:
    return not place.name.startswith(".")

"""Data sets of images that fit into memory."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset


def image_set(
    images: torch.Tensor, labels: torch.Tensor, image_size: int | None, channels: int
) -> Dataset[Any]:
    """Images [N, 1, h, w] with their labels [N]; grey repeated to ``channels`` without a copy.

    image_size: height and width; other than theirs, images are resized as they are read, because
    60,000 images of 224 pixels and 3 colours would take 36 GB.
    """
    images = images.expand(-1, channels, -1, -1)
    if image_size is None or tuple(images.shape[2:]) == (image_size, image_size):
        return TensorDataset(images, labels)
    return Resized(images, labels, image_size)


class Resized(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Samples (image [C, size, size], label []) of images [N, C, h, w], resized when read."""

    def __init__(self, images: torch.Tensor, targets: torch.Tensor, size: int) -> None:
        self.images = images
        self.targets = targets
        self.size = size

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """A batch at once, which is many times faster than a sample at a time."""
        images = functional.interpolate(
            self.images[indices], size=(self.size, self.size), mode="bilinear", antialias=True
        )
        return list(zip(images, self.targets[indices], strict=True))

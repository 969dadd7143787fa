"""Random changes of a batch of images [N, C, H, W] that leave their targets as they are.

Each image draws its own numbers from one generator. Fill is 0, the mean of normalised images.
Targets are not touched: leave the geometric ones off where a target depends on the place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch.nn import functional

from secateur.errors import InputError


@dataclass(frozen=True)
class Augmentation:
    """What is drawn for each image; every one is off at 0.

    flip:      probability of a mirror image, left and right exchanged.
    crop:      pixels that the image moves by at most, up, down, left and right.
    scale:     share in [0, 1) that the image grows or shrinks by at most.
    rotate:    degrees that the image turns by at most, to either side, up to 180.
    jitter:    share that contrast and brightness change by at most, in [0, 1].
    noise:     standard deviation of Gaussian noise, in the units of the image.
    occlusion: share in [0, 1) of the area under one rectangle of zeros.
    """

    flip: float = 0.0
    crop: int = 0
    scale: float = 0.0
    rotate: float = 0.0
    jitter: float = 0.0
    noise: float = 0.0
    occlusion: float = 0.0

    def __post_init__(self) -> None:
        most = {"flip": 1.0, "rotate": 180.0, "jitter": 1.0}
        below = {"scale": 1.0, "occlusion": 1.0}
        for field in fields(self):
            value = getattr(self, field.name)
            largest, limit = most.get(field.name, math.inf), below.get(field.name, math.inf)
            if not (0 <= value <= largest and value < limit):
                top = f"to {largest:g}" if largest < math.inf else "up"
                top = f"to below {limit:g}" if limit < math.inf else top
                raise InputError(
                    f"augmentation {field.name} is {value}; give a number from 0 (off) {top}"
                )
        if self.crop != int(self.crop):
            raise InputError(f"augmentation crop is {self.crop}; give a whole number of pixels")


def augment(
    images: torch.Tensor, settings: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """The images after all changes that are on, [N, C, H, W]; the input itself when all are off.

    generator: on any device; the numbers are drawn there.
    Errors: InputError for anything but a batch of float images.
    """
    if settings == Augmentation():
        return images
    if not isinstance(images, torch.Tensor) or images.dim() != 4:
        seen = list(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
        raise InputError(
            f"augmentation wants a batch of images [N, C, H, W], got {seen}; switch it off"
        )
    if not images.is_floating_point():
        raise InputError(
            f"augmentation wants images of floats, got {images.dtype}; convert them, or switch "
            "it off"
        )
    if settings.scale or settings.rotate:
        angle = _between(-settings.rotate, settings.rotate, images, generator)
        factor = _between(1 - settings.scale, 1 + settings.scale, images, generator)
        images = turned(images, angle, factor)
    if settings.flip or settings.crop:
        images = _moved(images, settings.flip, int(settings.crop), generator)
    if settings.jitter:
        images = _jittered(images, settings.jitter, generator)
    if settings.noise:
        noise = torch.randn(
            images.shape, generator=generator, device=generator.device, dtype=images.dtype
        )
        images = images + settings.noise * noise.to(images.device)
    if settings.occlusion:
        images = _occluded(images, settings.occlusion, generator)
    return images


def turned(images: torch.Tensor, degrees: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Images turned counter-clockwise by ``degrees`` [N] and enlarged by ``factor`` [N].

    Bilinear, about the centre, zeros outside.
    """
    height, width = images.shape[-2:]
    angle = torch.deg2rad(degrees)
    cosine, sine, zero = angle.cos() / factor, angle.sin() / factor, torch.zeros_like(angle)
    # Rows say where an output pixel comes from, in coordinates that run from -1 to 1 along
    # either side: the ratio of the sides turns a rotation of those into one of pixels.
    rows = [
        torch.stack([cosine, -sine * height / width, zero], 1),
        torch.stack([sine * width / height, cosine, zero], 1),
    ]
    matrix = torch.stack(rows, 1).to(images.dtype)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def _moved(
    images: torch.Tensor, flip: float, crop: int, generator: torch.Generator
) -> torch.Tensor:
    """Mirrored with probability ``flip`` and moved by whole pixels: exact copies of pixels."""
    number, channels, height, width = images.shape
    columns = torch.arange(width, device=images.device).expand(number, -1)
    if crop:
        images = functional.pad(images, (crop, crop, crop, crop))
        rows = torch.arange(height, device=images.device) + _whole(2 * crop, images, generator)
        columns = columns + _whole(2 * crop, images, generator)
        images = images.gather(
            2, rows[:, None, :, None].expand(-1, channels, -1, images.shape[-1])
        )  # fmt: skip
    if flip:
        mirrored = _between(0, 1, images, generator)[:, None] < flip
        columns = torch.where(mirrored, images.shape[-1] - 1 - columns, columns)
    return images.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))


def _jittered(images: torch.Tensor, most: float, generator: torch.Generator) -> torch.Tensor:
    """Contrast about each image's mean, and brightness in units of its standard deviation."""
    mean = images.mean((1, 2, 3), keepdim=True)
    spread = images.std((1, 2, 3), keepdim=True)
    contrast = _between(1 - most, 1 + most, images, generator).view(-1, 1, 1, 1)
    brightness = _between(-most, most, images, generator).view(-1, 1, 1, 1)
    return (images - mean) * contrast + mean + brightness * spread


def _occluded(images: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """A rectangle of the image's proportions, all of it inside the image, set to 0."""
    height, width = images.shape[-2:]
    tall = min(height, max(1, round(height * math.sqrt(share))))
    wide = min(width, max(1, round(height * width * share / tall)))
    top = _whole(height - tall, images, generator)
    left = _whole(width - wide, images, generator)
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    under_rows = (rows >= top) & (rows < top + tall)
    under_columns = (columns >= left) & (columns < left + wide)
    under = under_rows[:, None, :, None] & under_columns[:, None, None, :]
    return images.masked_fill(under, 0)


def _between(
    low: float, high: float, images: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """One uniform number for each image, [N]."""
    drawn = torch.rand(len(images), generator=generator, device=generator.device)
    return (low + (high - low) * drawn).to(images.device)


def _whole(most: int, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One whole number from 0 to ``most`` for each image, [N, 1]."""
    size = (len(images), 1)
    drawn = torch.randint(most + 1, size, generator=generator, device=generator.device)
    return drawn.to(images.device)

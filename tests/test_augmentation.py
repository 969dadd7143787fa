"""Augmentation against what its words promise."""

from __future__ import annotations

import math

import pytest
import torch

from secateur.errors import InputError
from secateur.training.augmentation import Augmentation, augment, turned

ALL = Augmentation(
    flip=0.5, crop=2, scale=0.1, rotate=15.0, jitter=0.2, noise=0.1, occlusion=0.1
)  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(number: int = 16, height: int = 12, width: int = 10) -> torch.Tensor:
    return torch.rand(number, 3, height, width, generator=seeded(7)) + 0.5


def test_off_is_the_identity_and_draws_nothing():
    images, generator = photos(), seeded()
    assert augment(images, Augmentation(), generator) is images
    assert torch.equal(generator.get_state(), seeded().get_state())


@pytest.mark.parametrize(
    "settings",
    [
        Augmentation(flip=0.5),
        Augmentation(crop=3),
        Augmentation(scale=0.2),
        Augmentation(rotate=30),
        Augmentation(jitter=0.3),
        Augmentation(noise=0.1),
        Augmentation(occlusion=0.2),
        ALL,
    ],
)
def test_the_generator_decides(settings):
    images = photos()
    before = images.clone()
    first = augment(images, settings, seeded(1))
    assert first.shape == images.shape and first.dtype == images.dtype
    assert torch.equal(first, augment(images, settings, seeded(1)))
    assert not torch.equal(first, augment(images, settings, seeded(2)))
    assert not torch.equal(first, images)
    assert torch.equal(images, before)


def test_flipping_twice_is_nothing():
    images, always = photos(), Augmentation(flip=1.0)
    once = augment(images, always, seeded(1))
    assert torch.equal(once, images.flip(-1))
    assert torch.equal(augment(once, always, seeded(2)), images)


def test_flip_mirrors_its_share_of_the_images():
    images = photos(2000, 2, 3)
    flipped = augment(images, Augmentation(flip=0.3), seeded())
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert ((flipped == images).flatten(1).all(1) ^ mirrored).all()
    assert abs(mirrored.float().mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 2000)


def test_crop_moves_whole_pixels_within_its_limit():
    images = photos(200, 9, 7)
    moved = augment(images, Augmentation(crop=2), seeded())
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    seen = set()
    for number in range(len(images)):
        places = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(moved[number], padded[number, :, top : top + 9, left : left + 7])
        ]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) == 25


def test_flip_of_a_crop_keeps_the_channels_apart():
    images = photos(50) + torch.tensor([0.0, 10.0, 20.0])[:, None, None]
    both = augment(images, Augmentation(flip=0.5, crop=1), seeded())
    inner = both[:, :, 1:-1, 1:-1]
    for channel in range(3):
        assert inner[:, channel].min() >= 0.5 + 10 * channel
        assert inner[:, channel].max() <= 1.5 + 10 * channel


def test_a_quarter_turn_is_rot90():
    images = photos(3, 8, 8).double()
    angles = torch.tensor([90.0, -90.0, 180.0], dtype=torch.float64)
    out = turned(images, angles, torch.ones(3, dtype=torch.float64))
    for number, quarters in enumerate((1, -1, 2)):
        torch.testing.assert_close(out[number], torch.rot90(images[number], quarters, (1, 2)))


def test_a_turn_of_an_oblong_image_keeps_distances():
    image = torch.zeros(1, 1, 21, 41, dtype=torch.float64)
    image[..., 10, 26] = 1.0  # six pixels to the right of the centre
    out = turned(image, torch.tensor([90.0]).double(), torch.ones(1).double())
    assert out[0, 0, 4, 20] == pytest.approx(1.0)  # six pixels above it


def test_scale_enlarges_about_the_centre():
    image = torch.zeros(1, 1, 21, 41, dtype=torch.float64)
    image[..., 10, 23] = 1.0
    out = turned(image, torch.zeros(1).double(), torch.full((1,), 2.0).double())
    assert out[0, 0, 10, 26] == pytest.approx(1.0)
    assert out.sum() == pytest.approx(4.0)  # twice as wide, twice as high


def test_jitter_is_one_line_for_each_image():
    images = photos(400)
    changed = augment(images, Augmentation(jitter=0.4), seeded())
    centred = images - images.mean((1, 2, 3), keepdim=True)
    after = changed - changed.mean((1, 2, 3), keepdim=True)
    contrast = after.std((1, 2, 3)) / centred.std((1, 2, 3))
    torch.testing.assert_close(after, centred * contrast[:, None, None, None])
    assert 0.6 <= contrast.min() < 0.65 and 1.35 < contrast.max() <= 1.4
    shift = (changed - images).mean((1, 2, 3)) / images.std((1, 2, 3))
    assert -0.401 <= shift.min() < -0.35 and 0.35 < shift.max() <= 0.401


def test_noise_has_the_variance_it_was_given():
    images = photos(64, 32, 32)
    noise = augment(images, Augmentation(noise=0.3), seeded()) - images
    count = noise.numel()
    assert abs(noise.mean()) < 5 * 0.3 / math.sqrt(count)
    assert abs(noise.var() - 0.09) < 5 * 0.09 * math.sqrt(2 / count)


@pytest.mark.parametrize("share", [0.04, 0.25, 0.5, 0.9])
def test_occlusion_covers_its_share_of_every_image(share):
    images = photos(50, 40, 30)
    covered = augment(images, Augmentation(occlusion=share), seeded()) == 0
    assert torch.equal(covered.any(1), covered.all(1))  # the same place in every channel
    shares = covered[:, 0].float().mean((1, 2))
    assert (shares - share).abs().max() <= 40 / (2 * 40 * 30)  # half a column is what is rounded
    for mask in covered[:, 0]:  # a rectangle: as many pixels as rows times columns
        assert mask.any(1).sum() * mask.any(0).sum() == mask.sum()
    assert len({tuple(mask.nonzero()[0].tolist()) for mask in covered[:, 0]}) > 5


@pytest.mark.parametrize(
    "wrong",
    [
        *({"flip": 1.5}, {"crop": -1}, {"crop": 1.5}, {"scale": 1.0}, {"rotate": 200}),
        *({"jitter": -0.1}, {"noise": math.nan}, {"noise": math.inf}, {"occlusion": 1.0}),
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    name = next(iter(wrong))
    with pytest.raises(InputError, match=f"augmentation {name} is"):
        Augmentation(**wrong)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (torch.rand(4, 8), r"wants a batch of images \[N, C, H, W\], got \[4, 8\]"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), "images of floats, got torch.uint8"),
        ({"pixels": torch.rand(4, 3, 8, 8)}, "got dict"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images, sentence):
    with pytest.raises(InputError, match=sentence):
        augment(images, Augmentation(flip=0.5), seeded())

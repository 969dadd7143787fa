"""Upwards: transposed convolutions and pixel shuffles."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, batchnorm, cols, floats, rows


def decoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 2, stride=2, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 5, 3, stride=2, padding=1, output_padding=1),
        nn.ReLU(),
        nn.Conv2d(5, 2, 1),
    )


class GroupedTransposed(nn.Module):
    """A transposed weight is [in, out / groups, ...]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2)
        self.depth = nn.ConvTranspose2d(6, 6, 3, groups=6)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.depth(F.relu(self.up(F.relu(self.conv(x)))))))


class Generator(nn.Module):
    """A latent vector becomes a small image: every channel owns 2 x 2 rows."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 7 * 2 * 2)
        self.up = nn.ConvTranspose2d(7, 6, 4, stride=2, padding=1)
        self.out = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = F.relu(self.fc(z)).view(z.shape[0], -1, 2, 2)
        return self.out(F.relu(self.up(x))).tanh()


def pixel_shuffle() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 5 * 4, 3, padding=1),
        nn.PixelShuffle(2),
        nn.ReLU(),
        nn.Conv2d(5, 2, 3, padding=1),
    )


def pixel_unshuffle() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1),
        nn.ReLU(),
        nn.PixelUnshuffle(2),
        nn.Conv2d(20, 7, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(7 * 16, 3),
    )


class Unpooled(nn.Module):
    """Pooling remembers where its maxima were, and unpooling puts values back there."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)
        self.conv3 = nn.Conv2d(6, 5, 3, padding=1)
        self.out = nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, places = self.pool(F.relu(self.conv1(x)))
        x = self.unpool(F.relu(self.conv2(x)), places)
        return self.out(F.relu(self.conv3(x)))


ENTRIES = (
    Entry(
        "unpooled",
        Unpooled,
        floats(3, 8, 8),
        (
            # a value goes where its own channel had a maximum, so both sides lose the channel
            Expected(6, rows("conv1") | cols("conv2") | rows("conv2") | cols("conv3")),
            Expected(5, rows("conv3") | cols("out")),
        ),
    ),
    Entry(
        "decoder",
        decoder,
        floats(3, 8, 8),
        (
            Expected(8, rows("0") | {"2.weight:0": 1}),
            Expected(6, {"2.weight:1": 1} | batchnorm("3") | {"5.weight:0": 1}),
            Expected(5, {"5.weight:1": 1, "5.bias:0": 1} | cols("7")),
        ),
    ),
    Entry(
        "grouped_transposed",
        GroupedTransposed,
        floats(3, 6, 6),
        (
            Expected(  # whole groups: 4 channels in, 3 out
                2,
                rows("conv", 4)
                | {"up.weight:0": 4, "up.bias:0": 3}
                | rows("depth", 3)
                | cols("head", 3),
            ),
            Expected(4, rows("conv", 2) | {"up.weight:0": 2}),
            Expected(
                3,
                {"up.weight:1": 1, "up.bias:0": 2} | rows("depth", 2) | cols("head", 2),
            ),
        ),
    ),
    Entry(
        "generator",
        Generator,
        floats(5),
        (
            Expected(7, rows("fc", 4) | {"up.weight:0": 1}),
            Expected(6, {"up.weight:1": 1, "up.bias:0": 1} | cols("out")),
        ),
    ),
    Entry(
        "pixel_shuffle",
        pixel_shuffle,
        floats(3, 6, 6),
        (Expected(6, rows("0") | cols("2")), Expected(5, rows("2", 4) | cols("5"))),
    ),
    Entry(
        "pixel_unshuffle",
        pixel_unshuffle,
        floats(3, 8, 8),
        (Expected(5, rows("0") | cols("3", 4)), Expected(7, rows("3") | cols("6", 16))),
    ),
)

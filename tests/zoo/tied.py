"""One tensor at several places."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, batchnorm, cols, floats, rows, tokens


class TiedEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.fc1 = nn.Linear(8, 13)
        self.fc2 = nn.Linear(13, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fc2(F.relu(self.fc1(self.embed(x)))))


class EmbeddingPool(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 7)
        self.fc = nn.Linear(7, 9)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.fc(self.embed(x).mean(dim=1))))


class SharedTwice(nn.Module):
    """The second call's input is the first call's output, so rows and columns leave together."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 9)
        self.shared = nn.Linear(9, 9)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.shared(F.relu(self.shared(F.relu(self.first(x))))))


class SharedHead(nn.Module):
    """One detection head reads two levels of a pyramid."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Conv2d(3, 6, 3, padding=1)
        self.high = nn.Conv2d(6, 10, 3, stride=2, padding=1)
        self.lateral_low = nn.Conv2d(6, 8, 1)
        self.lateral_high = nn.Conv2d(10, 8, 1)
        self.tower = nn.Conv2d(8, 7, 3, padding=1)
        self.scores = nn.Conv2d(7, 2, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        low = F.relu(self.low(x))
        top = self.lateral_high(F.relu(self.high(low)))
        mid = self.lateral_low(low) + F.interpolate(top, scale_factor=2.0)
        return [self.scores(F.relu(self.tower(level))) for level in (mid, top)]


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 10),
        )
        self.head = nn.Linear(20, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        a, b = self.encoder(left), self.encoder(right)
        return self.head(torch.cat([(a - b).abs(), a * b], dim=1))


class TiedAutoencoder(nn.Module):
    """The decoder is the encoder's transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(12, 7)
        self.bias = nn.Parameter(torch.zeros(12))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.sigmoid(self.encoder(x))
        return F.linear(hidden, self.encoder.weight.t(), self.bias)


ENTRIES = (
    Entry(
        "tied_embedding",
        TiedEmbedding,
        tokens(6, 11),
        (
            Expected(8, {"embed.weight:1": 1} | cols("fc1") | rows("fc2")),
            Expected(13, rows("fc1") | cols("fc2")),
        ),
    ),
    Entry(
        "embedding_pool",
        EmbeddingPool,
        tokens(6, 11),
        (
            Expected(7, {"embed.weight:1": 1} | cols("fc")),
            Expected(9, rows("fc") | cols("head")),
        ),
    ),
    Entry(
        "shared_twice",
        SharedTwice,
        floats(5),
        (Expected(9, rows("first") | rows("shared") | cols("shared") | cols("head")),),
    ),
    Entry(
        "shared_head",
        SharedHead,
        floats(3, 8, 8),
        (
            Expected(6, rows("low") | cols("high") | cols("lateral_low")),
            Expected(10, rows("high") | cols("lateral_high")),
            Expected(8, rows("lateral_low") | rows("lateral_high") | cols("tower")),
            Expected(7, rows("tower") | cols("scores")),
        ),
    ),
    Entry(
        "siamese",
        Siamese,
        lambda: (torch.randn(2, 3, 7, 7), torch.randn(2, 3, 7, 7)),
        (
            Expected(8, rows("encoder.0") | batchnorm("encoder.1") | cols("encoder.5")),
            Expected(10, rows("encoder.5") | cols("head", 2)),
        ),
    ),
    Entry(
        "tied_autoencoder",
        TiedAutoencoder,
        floats(12),
        # at a removed unit the sigmoid is one half and meets the same zeroed row on its way out
        (Expected(7, rows("encoder")),),
    ),
)

"""Several inputs, several outputs, keywords, outputs that hold features, auxiliary heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, batchnorm, cols, floats, rows


class TwoHeads(nn.Module):
    """Two answers in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, 11)
        self.classes = nn.Linear(11, 4)
        self.boxes = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = F.relu(self.trunk(x))
        return {"classes": self.classes(F.relu(self.fc(x.mean((2, 3))))), "boxes": self.boxes(x)}


class FeatureOutput(nn.Module):
    """The user reads the middle features, so they stay; what lies around them may leave."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 7, 3)
        self.conv2 = nn.Conv2d(7, 8, 3)
        self.conv3 = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.conv2(F.relu(self.conv1(x)))
        return self.head(F.relu(self.conv3(F.relu(features))).mean((2, 3))), features


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.fc = nn.Linear(5, 8)
        self.mix = nn.Linear(14, 9)
        self.head = nn.Linear(9, 3)

    def forward(self, image: Tensor, vector: Tensor) -> Tensor:
        image = F.relu(self.conv(image)).mean((2, 3))
        return self.head(F.relu(self.mix(torch.cat([image, F.relu(self.fc(vector))], -1))))


class Modulated(nn.Module):
    """FiLM: a condition scales and shifts the channels of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 7, 3)
        self.film = nn.Linear(5, 14)
        self.head = nn.Linear(7, 3)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Tensor:
        x = self.conv(image)
        if condition is not None:
            scale, shift = self.film(condition)[:, :, None, None].chunk(2, 1)
            x = x * (1 + scale) + shift
        return self.head(F.relu(x).mean((2, 3)))


class AuxiliaryHead(nn.Module):
    """The second answer exists only while training; its layers are pruned all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 10, 3)
        self.head = nn.Linear(10, 3)
        self.aux_conv = nn.Conv2d(8, 6, 1)
        self.aux_bn = nn.BatchNorm2d(6)
        self.aux_head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = F.relu(self.bn1(self.conv1(x)))
        answer = self.head(F.relu(self.conv2(x)).mean((2, 3)))
        if not self.training:
            return answer
        return answer, self.aux_head(F.relu(self.aux_bn(self.aux_conv(x))).mean((2, 3)))


TWO_INPUTS = (
    Expected(6, rows("conv") | cols("mix")),
    Expected(8, rows("fc") | cols("mix")),
    Expected(9, rows("mix") | cols("head")),
)
MODULATED = (Expected(7, rows("conv") | rows("film", 2) | cols("head")),)

ENTRIES = (
    Entry(
        "two_heads",
        TwoHeads,
        floats(3, 7, 7),
        (
            Expected(8, rows("trunk") | cols("fc") | cols("boxes")),
            Expected(11, rows("fc") | cols("classes")),
        ),
    ),
    Entry(
        "feature_output",
        FeatureOutput,
        floats(3, 7, 7),
        (Expected(7, rows("conv1") | cols("conv2")), Expected(6, rows("conv3") | cols("head"))),
    ),
    Entry(
        "dict_input",
        TwoInputs,
        lambda: {"vector": torch.randn(2, 5), "image": torch.randn(2, 3, 7, 7)},
        TWO_INPUTS,
    ),
    Entry(
        "keyword_input",
        Modulated,
        lambda: ((torch.randn(2, 3, 7, 7),), {"condition": torch.randn(2, 5)}),
        MODULATED,
    ),
    Entry(
        "auxiliary_head",
        AuxiliaryHead,
        floats(3, 7, 7),
        (
            Expected(8, rows("conv1") | batchnorm("bn1") | cols("conv2") | cols("aux_conv")),
            Expected(10, rows("conv2") | cols("head")),
            Expected(6, rows("aux_conv") | batchnorm("aux_bn") | cols("aux_head")),
        ),
    ),
)

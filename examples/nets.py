"""Small nets for small pictures: six shapes for 1x28x28 Fashion-MNIST, one for 1x8x8 digits.

The six for Fashion-MNIST cost 7 to 9 million multiply-adds an image each, so that they can be
compared. Weights are drawn by torch's own initialisation: set ``torch.manual_seed`` beforehand.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_model
from torch import Tensor, nn
from torch.nn import functional as F


class TwoConvolutions(nn.Module):
    """Two convolutions and two linear layers for 1x28x28."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 5, padding=2)
        self.conv2 = nn.Conv2d(16, 32, 5, padding=2)
        self.fc1 = nn.Linear(32 * 7 * 7, 64)
        self.fc2 = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, stages of basic blocks that halve the picture, a mean, a linear layer."""

    def __init__(self, widths: tuple[int, ...], blocks: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, widths[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        stages = []
        inside = widths[0]
        for index, width in enumerate(widths):
            strides = [1 if index == 0 else 2] + [1] * (blocks - 1)
            stage = []
            for stride in strides:
                stage.append(BasicBlock(inside, width, stride))
                inside = width
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.fc = nn.Linear(inside, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        x = self.stages(x)
        return self.fc(x.mean((2, 3)))


def trained(net: str) -> nn.Module:
    """One of the nets below with the weights of ``weights/NET.safetensors`` (train_dense.py)."""
    builders = {"resnet20": resnet20, "vgg": vgg, "mobilenetv2": mobilenetv2,
                "densenet": densenet, "vit": vit, "convnext": convnext}  # fmt: skip
    if net not in builders:
        raise ValueError(f"there is no net {net!r}; known are {', '.join(builders)}")
    model = builders[net]()
    load_model(model, Path(__file__).with_name("weights") / f"{net}.safetensors")
    return model


def resnet20(classes: int = 10) -> nn.Module:
    """ResNet-20 at half its usual width: [batch, 1, 28, 28] -> [batch, classes]."""
    return ResNet((8, 16, 32), blocks=3, classes=classes)


def digits_resnet(classes: int = 10, width: int = 16) -> nn.Module:
    """A small residual net for 8x8 digits: [batch, 1, 8, 8] -> [batch, classes]."""
    return ResNet((width, 2 * width), blocks=2, classes=classes)


class VGG(nn.Module):
    """3x3 convolutions and pooling, then flattened into two linear layers."""

    def __init__(self, widths: tuple[int, ...], hidden: int, classes: int) -> None:
        super().__init__()
        a, b, c, d, e, f = widths
        self.features = nn.Sequential(
            *_conv(1, a), nn.MaxPool2d(2),
            *_conv(a, b), nn.MaxPool2d(2),
            *_conv(b, c), *_conv(c, d), nn.MaxPool2d(2),
            *_conv(d, e), *_conv(e, f),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Linear(f * 3 * 3, hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


def vgg(classes: int = 10) -> nn.Module:
    """A slim VGG-11 with batch normalisation: [batch, 1, 28, 28] -> [batch, classes]."""
    return VGG((20, 40, 80, 80, 112, 112), hidden=64, classes=classes)


class InvertedResidual(nn.Module):
    """Widen by a 1x1 convolution, convolve each channel by itself, narrow again."""

    def __init__(self, inside: int, outside: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inside * expand
        layers: list[nn.Module] = []
        if expand != 1:
            layers += [nn.Conv2d(inside, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        layers += [
            nn.Conv2d(wide, wide, 3, stride, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, outside, 1, bias=False),
            nn.BatchNorm2d(outside),
        ]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """A stem, inverted residuals, a 1x1 convolution, a mean, a linear layer."""

    def __init__(self, stem: int, rows: tuple[tuple[int, int, int, int], ...], last: int,
                 classes: int) -> None:  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = [*_conv(1, stem, nn.ReLU6)]
        inside = stem
        for expand, outside, count, stride in rows:
            for index in range(count):
                layers.append(
                    InvertedResidual(inside, outside, stride if index == 0 else 1, expand)
                )
                inside = outside
        layers += [nn.Conv2d(inside, last, 1, bias=False), nn.BatchNorm2d(last), nn.ReLU6()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.1), nn.Linear(last, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def mobilenetv2(classes: int = 10) -> nn.Module:
    """A small MobileNetV2: [batch, 1, 28, 28] -> [batch, classes]."""
    rows = ((1, 8, 1, 1), (6, 16, 3, 2), (6, 32, 3, 2), (6, 48, 3, 1))
    return MobileNetV2(stem=12, rows=rows, last=160, classes=classes)


class DenseLayer(nn.Module):
    """Normalised, convolved to a few new channels, and put behind what came in."""

    def __init__(self, inside: int, growth: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inside)
        self.conv = nn.Conv2d(inside, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.bn(x)))], 1)


class DenseNet(nn.Module):
    """A stem, blocks of dense layers with halving transitions between, a mean, a linear layer."""

    def __init__(self, stem: int, growth: int, blocks: tuple[int, ...], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, stem, 3, padding=1, bias=False)]
        width = stem
        for number, count in enumerate(blocks):
            if number:
                narrow = nn.Conv2d(width, width // 2, 1, bias=False)
                layers += [nn.BatchNorm2d(width), nn.ReLU(), narrow, nn.AvgPool2d(2)]
                width //= 2
            for _ in range(count):
                layers.append(DenseLayer(width, growth))
                width += growth
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU())
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def densenet(classes: int = 10) -> nn.Module:
    """A small DenseNet: [batch, 1, 28, 28] -> [batch, classes]."""
    return DenseNet(stem=16, growth=6, blocks=(4, 6, 8), classes=classes)


class Attention(nn.Module):
    """Multi-head attention with one projection for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, self.head_width)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(query, key, value)
        return self.proj(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then a two-layer perceptron, each normalised first and beside a shortcut."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """Patches as tokens, a class token, learned positions, transformer blocks."""

    def __init__(self, size: int, patch: int, width: int, depth: int, heads: int, hidden: int,
                 classes: int) -> None:  # fmt: skip
        super().__init__()
        tokens = (size // patch) ** 2 + 1
        self.patches = nn.Conv2d(1, width, patch, stride=patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, tokens, width))
        self.blocks = nn.Sequential(*(Block(width, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.positions
        x = self.norm(self.blocks(x))
        return self.head(x[:, 0])


def vit(classes: int = 10) -> nn.Module:
    """A small vision transformer, patches of 4x4: [batch, 1, 28, 28] -> [batch, classes]."""
    return ViT(size=28, patch=4, width=64, depth=4, heads=4, hidden=128, classes=classes)


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution, then a two-layer perceptron of every place, beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(0.1 * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.fc2(F.gelu(self.fc1(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Patches of 2x2, blocks, patches of 2x2 again, blocks, a mean; layer norms throughout."""

    def __init__(self, widths: tuple[int, int], blocks: tuple[int, int], classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, widths[0], 2, stride=2)
        self.stem_norm = nn.LayerNorm(widths[0])
        self.stage1 = nn.Sequential(*(ConvNeXtBlock(widths[0]) for _ in range(blocks[0])))
        self.between_norm = nn.LayerNorm(widths[0])
        self.between = nn.Conv2d(widths[0], widths[1], 2, stride=2)
        self.stage2 = nn.Sequential(*(ConvNeXtBlock(widths[1]) for _ in range(blocks[1])))
        self.norm = nn.LayerNorm(widths[1])
        self.head = nn.Linear(widths[1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage1(_over_channels(self.stem_norm, self.stem(x)))
        x = self.stage2(self.between(_over_channels(self.between_norm, x)))
        return self.head(self.norm(x.mean((2, 3))))


def convnext(classes: int = 10) -> nn.Module:
    """A small ConvNeXt: [batch, 1, 28, 28] -> [batch, classes]."""
    return ConvNeXt(widths=(32, 64), blocks=(2, 3), classes=classes)


def _over_channels(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """A layer norm over the channels of [batch, channels, height, width]."""
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _conv(inside: int, outside: int, activation: type[nn.Module] = nn.ReLU) -> list[nn.Module]:
    return [
        nn.Conv2d(inside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        activation(),
    ]

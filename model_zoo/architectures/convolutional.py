"""Convolutional blocks: grouped, reparametrised, ghosts, several kernels, attention on channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_zoo.architectures.table import Table, image
from model_zoo.subjects import Subject


def conv_bn(inside: int, outside: int, kernel: int = 1, stride: int = 1, groups: int = 1):
    """Convolution and batch norm."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outside),
    )


class ResNeXtBlock(nn.Module):
    """A bottleneck with a grouped convolution."""

    def __init__(self, inside: int, middle: int, outside: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(inside, middle), nn.ReLU(), conv_bn(middle, middle, 3, groups=groups),
            nn.ReLU(), conv_bn(middle, outside),
        )  # fmt: skip
        self.shortcut = nn.Identity() if inside == outside else conv_bn(inside, outside)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class RepVggBlock(nn.Module):
    """Three parallel branches before they are fused."""

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        same = inside == outside and stride == 1
        self.identity = nn.BatchNorm2d(inside) if same else None
        self.dense, self.point = (
            conv_bn(inside, outside, 3, stride),
            conv_bn(inside, outside, 1, stride),
        )

    def forward(self, x: Tensor) -> Tensor:
        identity = 0 if self.identity is None else self.identity(x)
        return F.relu(self.dense(x) + self.point(x) + identity)


class GhostModule(nn.Module):
    """Half of the maps are made from the other half by a cheap operation."""

    def __init__(self, inside: int, outside: int, relu: bool = True) -> None:
        super().__init__()
        self.outside = outside
        first = outside // 2
        self.primary = nn.Sequential(conv_bn(inside, first), nn.ReLU() if relu else nn.Identity())
        self.cheap = nn.Sequential(
            conv_bn(first, first, 3, groups=first), nn.ReLU() if relu else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.primary(x)
        return torch.cat([x1, self.cheap(x1)], dim=1)[:, : self.outside, :, :]


class GhostBottleneck(nn.Module):
    """Ghost, squeeze and excite, ghost, shortcut."""

    def __init__(self, inside: int, hidden: int, outside: int) -> None:
        super().__init__()
        self.ghost1, self.ghost2 = GhostModule(inside, hidden), GhostModule(hidden, outside, False)
        self.reduce, self.expand = nn.Conv2d(hidden, 6, 1), nn.Conv2d(6, hidden, 1)
        self.shortcut = nn.Sequential() if inside == outside else conv_bn(inside, outside)

    def forward(self, x: Tensor) -> Tensor:
        y = self.ghost1(x)
        gate = self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(y, 1))))
        return self.ghost2(y * F.hardsigmoid(gate)) + self.shortcut(x)


class CondConv(nn.Module):
    """Kernels mixed for each sample by a routing of its content, run as one grouped convolution."""

    def __init__(self, inside: int, outside: int, experts: int) -> None:
        super().__init__()
        self.inside, self.outside = inside, outside
        self.routing = nn.Linear(inside, experts)
        self.weight = nn.Parameter(torch.randn(experts, outside, inside, 3, 3))
        self.bias = nn.Parameter(torch.randn(experts, outside))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        routing = torch.sigmoid(self.routing(x.mean((2, 3))))
        weight = (routing @ self.weight.flatten(1)).view(-1, self.inside, 3, 3)
        bias = (routing @ self.bias).view(-1)
        x = x.reshape(1, batch * channels, height, width)
        x = F.conv2d(x, weight, bias, padding=1, groups=batch)
        return x.view(batch, self.outside, height, width)


class DynamicConv(nn.Module):
    """A softmax over kernels; the sum over experts is written out, without groups."""

    def __init__(self, inside: int, outside: int, experts: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(inside, outside, 3, padding=1) for _ in range(experts))
        self.route = nn.Sequential(nn.Linear(inside, 6), nn.ReLU(), nn.Linear(6, experts))

    def forward(self, x: Tensor) -> Tensor:
        weights = F.softmax(self.route(x.mean((2, 3))) / 4, dim=1)
        answers = torch.stack([conv(x) for conv in self.convs], dim=1)
        return (weights[:, :, None, None, None] * answers).sum(dim=1)


class SelectiveKernel(nn.Module):
    """Two receptive fields, chosen between for every channel."""

    def __init__(self, width: int, reduced: int) -> None:
        super().__init__()
        self.width = width
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=d, dilation=d, groups=4, bias=False),
                nn.BatchNorm2d(width), nn.ReLU(),
            )
            for d in (1, 2)
        )  # fmt: skip
        self.fc = nn.Sequential(nn.Conv2d(width, reduced, 1, bias=False), nn.BatchNorm2d(reduced))
        self.select = nn.Conv2d(reduced, 2 * width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.size(0)
        found = torch.stack([conv(x) for conv in self.convs], dim=1)
        pooled = found.sum(dim=1).mean((2, 3), keepdim=True)
        weights = self.select(F.relu(self.fc(pooled))).view(batch, 2, self.width, 1, 1)
        return (found * weights.softmax(dim=1)).sum(dim=1)


class Cbam(nn.Module):
    """Attention on channels by mean and maximum, then on places."""

    def __init__(self, width: int, reduced: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Conv2d(width, reduced, 1), nn.ReLU(), nn.Conv2d(reduced, width, 1)
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.mlp(F.adaptive_avg_pool2d(x, 1))
        x = x * torch.sigmoid(mean + self.mlp(F.adaptive_max_pool2d(x, 1)))
        places = torch.cat([x.mean(dim=1, keepdim=True), x.max(dim=1, keepdim=True)[0]], dim=1)
        return x * torch.sigmoid(self.spatial(places))


class Res2Block(nn.Module):
    """Pieces of the channels, each convolved with the piece before it added."""

    def __init__(self, width: int, scale: int) -> None:
        super().__init__()
        self.part = width // scale
        self.conv1, self.conv3 = conv_bn(width, width), conv_bn(width, width)
        self.convs = nn.ModuleList(conv_bn(self.part, self.part, 3) for _ in range(scale - 1))

    def forward(self, x: Tensor) -> Tensor:
        pieces = torch.split(F.relu(self.conv1(x)), self.part, 1)
        done = [pieces[0]]
        for conv, piece in zip(self.convs, pieces[1:], strict=True):
            done.append(F.relu(conv(piece if len(done) == 1 else piece + done[-1])))
        return F.relu(self.conv3(torch.cat(done, 1)) + x)


class HighResolution(nn.Module):
    """Two resolutions side by side that exchange their maps, as in HRNet."""

    def __init__(self, high: int, low: int) -> None:
        super().__init__()
        self.stem, self.down = conv_bn(3, high, 3), conv_bn(high, low, 3, 2)
        self.high, self.low = conv_bn(high, high, 3), conv_bn(low, low, 3)
        self.to_low, self.to_high = conv_bn(high, low, 3, 2), conv_bn(low, high)

    def forward(self, x: Tensor) -> Tensor:
        high = F.relu(self.stem(x))
        low = F.relu(self.down(high))
        high, low = F.relu(self.high(high)), F.relu(self.low(low))
        wide = F.interpolate(self.to_high(low), size=high.shape[-2:], mode="bilinear")
        fused_low = F.relu(low + self.to_low(high))
        high = F.relu(high + wide)
        low = F.interpolate(fused_low, size=high.shape[-2:], mode="bilinear")
        return torch.cat([high, low], dim=1)


class Classifier(nn.Module):
    """Stem, blocks, a mean over places, a linear layer."""

    def __init__(self, stem: nn.Module, blocks: list[nn.Module], width: int, classes: int) -> None:
        super().__init__()
        self.stem, self.blocks = stem, nn.Sequential(*blocks)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1), 1))


def _stem(width: int) -> nn.Module:
    return nn.Sequential(conv_bn(3, width, 3, 2), nn.ReLU())


def _net(blocks: list[nn.Module], inside: int, outside: int) -> Subject:
    return Subject(Classifier(_stem(inside), blocks, outside, 5), image(12))


ARCHITECTURES: Table = {
    "resnext": lambda: _net([ResNeXtBlock(10, 12, 16, 4), ResNeXtBlock(16, 12, 16, 4)], 10, 16),
    "rep_vgg": lambda: _net(
        [RepVggBlock(8, 12, 2), RepVggBlock(12, 12), RepVggBlock(12, 14)], 8, 14
    ),
    "ghost_net": lambda: _net([GhostBottleneck(8, 20, 12), GhostBottleneck(12, 28, 12)], 8, 12),
    "cond_conv": lambda: _net([CondConv(8, 10, 3), nn.ReLU(), CondConv(10, 12, 3)], 8, 12),
    "dynamic_conv": lambda: _net(
        [DynamicConv(8, 10, 3), nn.BatchNorm2d(10), nn.ReLU(), DynamicConv(10, 12, 3)], 8, 12
    ),
    "sk_net": lambda: _net([SelectiveKernel(12, 7), SelectiveKernel(12, 7)], 12, 12),
    "cbam": lambda: _net([Cbam(12, 5), conv_bn(12, 14, 3), nn.ReLU(), Cbam(14, 6)], 12, 14),
    "res2net": lambda: _net([Res2Block(16, 4), Res2Block(16, 4)], 16, 16),
    "hr_net": lambda: Subject(
        Classifier(nn.Identity(), [HighResolution(8, 12), conv_bn(20, 14)], 14, 5), image(12)
    ),
}

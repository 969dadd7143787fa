"""Vision nets without plain convolution stacks: ViT, mixers, ConvNeXt, Swin windows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import PackedAttention
from .table import Entry, Expected, cols, floats, norm, rows


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.cls = nn.Parameter(torch.zeros(1, 1, 12))
        self.position = nn.Parameter(torch.zeros(1, 5, 12))
        self.norm1 = nn.LayerNorm(12)
        self.attention = PackedAttention(12, 3, 5)
        self.norm2 = nn.LayerNorm(12)
        self.fc1 = nn.Linear(12, 17)
        self.fc2 = nn.Linear(17, 12)
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        x = x + self.attention(self.norm1(x))
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return self.head(self.norm(x)[:, 0])


class MlpMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 10, 4, 4)
        self.norm1 = nn.LayerNorm(10)
        self.tokens1 = nn.Linear(4, 7)
        self.tokens2 = nn.Linear(7, 4)
        self.norm2 = nn.LayerNorm(10)
        self.channels1 = nn.Linear(10, 13)
        self.channels2 = nn.Linear(13, 10)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        y = self.tokens2(F.gelu(self.tokens1(self.norm1(x).transpose(1, 2))))
        x = x + y.transpose(1, 2)
        x = x + self.channels2(F.gelu(self.channels1(self.norm2(x))))
        return self.head(x.mean(dim=1))


class GatedMlp(nn.Module):
    """gMLP: one half of the features, normed and mixed over tokens, gates the other half."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 18)
        self.norm = nn.LayerNorm(9)
        self.mix = nn.Linear(6, 6)
        self.fc2 = nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = F.gelu(self.fc1(x)).chunk(2, dim=-1)
        gate = self.mix(self.norm(gate).transpose(1, 2)).transpose(1, 2)
        return self.fc2(value * gate)


class PointwiseTokens(nn.Module):
    """The same, with the tokens mixed by a convolution of kernel one along the features."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 18)
        self.mix = nn.Conv1d(6, 6, 1)
        self.fc2 = nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = F.gelu(self.fc1(x)).chunk(2, dim=-1)
        return self.fc2(value * self.mix(gate))


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.LayerNorm(8, eps=1e-6)
        self.fc1 = nn.Linear(8, 20)
        self.fc2 = nn.Linear(20, 8)
        self.gamma = nn.Parameter(torch.full((8,), 1e-6))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        y = (self.gamma * self.fc2(F.gelu(self.fc1(y)))).permute(0, 3, 1, 2)
        return self.head((x + y).mean([-2, -1]))


class WindowAttention(nn.Module):
    """Attention in 2 x 2 windows with a learned bias per head and relative position."""

    index: Tensor

    def __init__(self, width: int, heads: int, dim: int) -> None:
        super().__init__()
        self.heads, self.dim = heads, dim
        self.qkv = nn.Linear(width, 3 * heads * dim)
        self.proj = nn.Linear(heads * dim, width)
        self.table = nn.Parameter(torch.zeros(9, heads))
        place = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij"))
        delta = place.flatten(1)[:, :, None] - place.flatten(1)[:, None, :] + 1
        self.register_buffer("index", (delta[0] * 3 + delta[1]).flatten())

    def forward(self, x: Tensor) -> Tensor:
        windows, length, _ = x.shape
        qkv = self.qkv(x).view(windows, length, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        bias = self.table[self.index].view(length, length, -1).permute(2, 0, 1)
        scores = q @ k.transpose(-2, -1) * self.dim**-0.5 + bias.unsqueeze(0)
        y = scores.softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(windows, length, -1))


class Swin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 2, 2)
        self.norm = nn.LayerNorm(8)
        self.attention = WindowAttention(8, 2, 3)
        self.merge_norm = nn.LayerNorm(32)
        self.reduction = nn.Linear(32, 10, bias=False)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).permute(0, 2, 3, 1)
        batch, height, length, width = x.shape
        y = torch.roll(self.norm(x), shifts=(-1, -1), dims=(1, 2))
        y = y.view(batch, height // 2, 2, length // 2, 2, width).permute(0, 1, 3, 2, 4, 5)
        y = self.attention(y.reshape(-1, 4, width))
        y = y.view(batch, height // 2, length // 2, 2, 2, width).permute(0, 1, 3, 2, 4, 5)
        y = y.reshape(batch, height, length, width)
        x = x + torch.roll(y, shifts=(1, 1), dims=(1, 2))
        corners = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        x = self.reduction(self.merge_norm(torch.cat(corners, -1)))
        return self.head(F.relu(x).mean((1, 2)))


ENTRIES = (
    Entry(
        "vision_transformer",
        VisionTransformer,
        floats(3, 8, 8),
        (
            Expected(
                12,
                rows("patch")
                | {"cls:2": 1, "position:2": 1}
                | norm("norm1")
                | cols("attention.qkv")
                | rows("attention.proj")
                | norm("norm2")
                | cols("fc1")
                | rows("fc2")
                | norm("norm")
                | cols("head"),
                exact=False,
            ),
            Expected(17, rows("fc1") | cols("fc2")),
            Expected(3, rows("attention.qkv", 15) | cols("attention.proj", 5)),
            Expected(5, rows("attention.qkv", 9) | cols("attention.proj", 3)),
        ),
        module_surgery=False,
    ),
    Entry(
        "mlp_mixer",
        MlpMixer,
        floats(3, 8, 8),
        (
            Expected(
                10,
                rows("patch")
                | norm("norm1")
                | norm("norm2")
                | cols("channels1")
                | rows("channels2")
                | cols("head"),
                exact=False,
            ),
            Expected(7, rows("tokens1") | cols("tokens2")),
            Expected(13, rows("channels1") | cols("channels2")),
        ),
    ),
    Entry(
        "gated_mlp",
        GatedMlp,
        floats(6, 5),
        (Expected(9, rows("fc1", 2) | norm("norm") | cols("fc2"), exact=False),),
    ),
    Entry(
        "gated_mlp_pointwise",
        PointwiseTokens,
        floats(6, 5),
        (Expected(9, rows("fc1", 2) | cols("fc2")),),
    ),
    Entry(
        "convnext",
        ConvNeXt,
        floats(3, 8, 8),
        (
            Expected(
                8,
                rows("stem")
                | rows("depth")
                | norm("norm")
                | cols("fc1")
                | rows("fc2")
                | {"gamma:0": 1}
                | cols("head"),
                exact=False,
            ),
            Expected(20, rows("fc1") | cols("fc2")),
        ),
    ),
    Entry(
        "swin",
        Swin,
        floats(3, 8, 8),
        (
            Expected(
                8,
                rows("patch")
                | norm("norm")
                | cols("attention.qkv")
                | rows("attention.proj")
                | norm("merge_norm", 4)
                | cols("reduction", 4),
                exact=False,
            ),
            Expected(
                2,
                rows("attention.qkv", 9) | {"attention.table:1": 1} | cols("attention.proj", 3),
            ),
            Expected(3, rows("attention.qkv", 6) | cols("attention.proj", 2)),
            Expected(10, rows("reduction", bias=False) | cols("head")),
        ),
        module_surgery=False,
    ),
)

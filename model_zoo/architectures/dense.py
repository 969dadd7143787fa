"""Mixers, gated units, experts, splines: nets made of matrix products."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_zoo.architectures.table import Table, image, tokens
from model_zoo.subjects import Subject


class MixerBlock(nn.Module):
    """One network across patches, one across channels."""

    def __init__(self, width: int, patches: int, token_hidden: int, channel_hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.token_mix = nn.Sequential(
            nn.Linear(patches, token_hidden), nn.GELU(), nn.Linear(token_hidden, patches)
        )
        self.channel_mix = nn.Sequential(
            nn.Linear(width, channel_hidden), nn.GELU(), nn.Linear(channel_hidden, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.token_mix(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel_mix(self.norm2(x))


class MlpMixer(nn.Module):
    """Patches, mixer blocks, a mean over patches."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 4, 4)
        self.blocks = nn.Sequential(*(MixerBlock(width, 16, 10, 30) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.embed(x).flatten(2).transpose(1, 2))
        return self.head(self.norm(x).mean(dim=1))


class SpatialGatingUnit(nn.Module):
    """Half of the channels, mixed over the sequence, gates the other half."""

    def __init__(self, hidden: int, length: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden // 2)
        self.proj = nn.Conv1d(length, length, kernel_size=1)
        nn.init.constant_(self.proj.bias, 1.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        u, v = x.chunk(2, dim=-1)
        return u * self.proj(self.norm(v))


class Gmlp(nn.Module):
    """gMLP over tokens."""

    def __init__(self, vocabulary: int, width: int, hidden: int, length: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.expand = nn.ModuleList(nn.Linear(width, hidden) for _ in range(2))
        self.gates = nn.ModuleList(SpatialGatingUnit(hidden, length) for _ in range(2))
        self.shrink = nn.ModuleList(nn.Linear(hidden // 2, width) for _ in range(2))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for norm, expand, gate, shrink in zip(
            self.norms, self.expand, self.gates, self.shrink, strict=True
        ):
            x = x + shrink(gate(F.gelu(expand(norm(x)))))
        return self.head(x.mean(1))


class KanLinear(nn.Module):
    """A spline on every edge beside a SiLU branch, after the efficient implementation."""

    def __init__(self, inside: int, outside: int, grid_size: int = 4, order: int = 2) -> None:
        super().__init__()
        self.inside, self.outside, self.order = inside, outside, order
        step = 2 / grid_size
        grid = torch.arange(-order, grid_size + order + 1) * step - 1
        self.register_buffer("grid", grid.expand(inside, -1).contiguous())
        self.grid: Tensor
        self.base_weight = nn.Parameter(torch.randn(outside, inside))
        self.spline_weight = nn.Parameter(torch.randn(outside, inside, grid_size + order))

    def b_splines(self, x: Tensor) -> Tensor:
        x, grid = x.unsqueeze(-1), self.grid
        bases = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
        for k in range(1, self.order + 1):
            left = (x - grid[:, : -(k + 1)]) / (grid[:, k:-1] - grid[:, : -(k + 1)])
            right = (grid[:, k + 1 :] - x) / (grid[:, k + 1 :] - grid[:, 1:(-k)])
            bases = left * bases[:, :, :-1] + right * bases[:, :, 1:]
        return bases.contiguous()

    def forward(self, x: Tensor) -> Tensor:
        base = F.linear(F.silu(x), self.base_weight)
        bases = self.b_splines(x).view(x.size(0), -1)
        return base + F.linear(bases, self.spline_weight.view(self.outside, -1))


class Kan(nn.Module):
    """Three layers of splines."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(KanLinear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class DenseMoe(nn.Module):
    """Every expert runs; a softmax gate weighs them."""

    def __init__(self, inside: int, hidden: int, outside: int, experts: int) -> None:
        super().__init__()
        self.gate = nn.Linear(inside, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(inside, hidden), nn.ReLU(), nn.Linear(hidden, outside))
            for _ in range(experts)
        )
        self.head = nn.Linear(outside, 3)

    def forward(self, x: Tensor) -> Tensor:
        weights = F.softmax(self.gate(x), dim=-1)
        answers = torch.stack([expert(x) for expert in self.experts], dim=1)
        return self.head((weights.unsqueeze(-1) * answers).sum(dim=1))


class TopKMoe(nn.Module):
    """Mixtral's block, every expert computed densely and masked by its routing weight."""

    def __init__(self, width: int, hidden: int, experts: int) -> None:
        super().__init__()
        self.embed = nn.Linear(6, width)
        self.gate = nn.Linear(width, experts, bias=False)
        self.w1 = nn.Parameter(torch.randn(experts, width, hidden))
        self.w2 = nn.Parameter(torch.randn(experts, hidden, width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        logits = self.gate(x)
        top, places = logits.topk(2, dim=-1)
        weights = torch.zeros_like(logits).scatter(-1, places, top.softmax(-1))
        hidden = F.silu(torch.einsum("btd,edh->bteh", x, self.w1))
        answers = torch.einsum("bteh,ehd->bted", hidden, self.w2)
        x = x + (answers * weights.unsqueeze(-1)).sum(2)
        return self.head(self.norm(x))


class Highway(nn.Module):
    """Layers that learn how much of their input to carry on."""

    def __init__(self, inside: int, width: int, classes: int) -> None:
        super().__init__()
        self.project = nn.Linear(inside, width)
        self.nonlinear = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.gate = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        for nonlinear, gate in zip(self.nonlinear, self.gate, strict=True):
            carry = torch.sigmoid(gate(x))
            x = carry * F.relu(nonlinear(x)) + (1 - carry) * x
        return self.head(x)


class Maxout(nn.Module):
    """The maximum over several linear pieces."""

    def __init__(self, inside: int, units: int, pieces: int, classes: int) -> None:
        super().__init__()
        self.units, self.pieces = units, pieces
        self.lin1 = nn.Linear(inside, units * pieces)
        self.lin2 = nn.Linear(units, units * pieces)
        self.head = nn.Linear(units, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lin1(x).view(-1, self.units, self.pieces).max(dim=2)[0]
        x = self.lin2(x).view(-1, self.units, self.pieces).max(dim=2)[0]
        return self.head(x)


class FtTransformer(nn.Module):
    """Columns of a table as tokens of a transformer, with a class token."""

    def __init__(self, numbers: int, cardinalities: list[int], width: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(numbers, width))
        self.bias = nn.Parameter(torch.randn(numbers + len(cardinalities), width))
        self.embeddings = nn.Embedding(sum(cardinalities), width)
        offsets = torch.tensor([0, *cardinalities[:-1]]).cumsum(0)
        self.register_buffer("offsets", offsets, persistent=False)
        self.offsets: Tensor
        self.cls = nn.Parameter(torch.randn(1, 1, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 30, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        x = numbers.unsqueeze(-1) * self.weight
        x = torch.cat([x, self.embeddings(categories + self.offsets)], dim=1) + self.bias
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1)
        return self.head(F.relu(self.norm(self.encoder(x)[:, 0])))


ARCHITECTURES: Table = {
    "mlp_mixer": lambda: Subject(MlpMixer(18, 5), image(16)),
    "gmlp": lambda: Subject(Gmlp(30, 14, 24, 9, 4), tokens(9, 30)),
    "kan": lambda: Subject(Kan([5, 8, 6, 3]), torch.rand(2, 5) * 1.6 - 0.8),
    "dense_moe": lambda: Subject(DenseMoe(6, 10, 8, 4), torch.randn(2, 6)),
    "top_k_moe": lambda: Subject(TopKMoe(12, 14, 4), torch.randn(2, 5, 6)),
    "highway": lambda: Subject(Highway(6, 12, 3), torch.randn(2, 6)),
    "maxout": lambda: Subject(Maxout(6, 10, 3, 4), torch.randn(2, 6)),
    "ft_transformer": lambda: Subject(
        FtTransformer(5, [4, 7], 16, 3), (torch.randn(2, 5), torch.tensor([[1, 3], [2, 6]]))
    ),
}

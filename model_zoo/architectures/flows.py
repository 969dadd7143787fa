"""Normalising flows: couplings, activation norms, invertible convolutions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_zoo.architectures.table import Table, image
from model_zoo.subjects import Subject


class Coupling(nn.Module):
    """An affine coupling layer: a masked half decides how the other is moved."""

    def __init__(self, width: int, hidden: int, parity: int) -> None:
        super().__init__()
        self.register_buffer("mask", (torch.arange(width) % 2 == parity).float())
        self.mask: Tensor
        self.scale = nn.Sequential(
            nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(),
            nn.Linear(hidden, width), nn.Tanh(),
        )  # fmt: skip
        self.shift = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        masked = x * self.mask
        s, t = self.scale(masked) * (1 - self.mask), self.shift(masked) * (1 - self.mask)
        return masked + (1 - self.mask) * (x * torch.exp(s) + t), s.sum(dim=1)


class RealNvp(nn.Module):
    """Coupling layers to a normal distribution; the log-likelihood of a sample."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Coupling(width, hidden, i % 2) for i in range(3))
        self.width = width

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[0])
        for layer in self.layers:
            x, log_det = layer(x)
            total = total + log_det
        prior = -0.5 * (x**2).sum(dim=1) - 0.5 * self.width * math.log(2 * math.pi)
        return x, prior + total


class ActNorm(nn.Module):
    """A scale and a shift of each channel, set from data when training starts."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        size = x.shape[2] * x.shape[3]
        return (x + self.shift) * torch.exp(self.log_scale), size * self.log_scale.sum()


class GlowStep(nn.Module):
    """Activation norm, an invertible convolution of 1 by 1, an affine coupling."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.norm = ActNorm(channels)
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(channels, channels))[0])
        self.net = nn.Sequential(
            nn.Conv2d(channels // 2, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(), nn.Conv2d(hidden, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.norm(x)
        log_det = log_det + x.shape[2] * x.shape[3] * torch.slogdet(self.weight)[1]
        x = F.conv2d(x, self.weight.unsqueeze(-1).unsqueeze(-1))
        first, second = x.chunk(2, 1)
        log_scale, shift = self.net(first).chunk(2, 1)
        scale = torch.sigmoid(log_scale + 2)
        second = (second + shift) * scale
        return torch.cat([first, second], 1), log_det + scale.log().sum((1, 2, 3))


class Glow(nn.Module):
    """A squeeze of places into channels, then steps; latents and their log-likelihood."""

    def __init__(self, hidden: int, steps: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(GlowStep(12, hidden) for _ in range(steps))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.pixel_unshuffle(x, 2)
        total = x.new_zeros(x.shape[0])
        for step in self.steps:
            x, log_det = step(x)
            total = total + log_det
        return x, total - 0.5 * (x**2).sum((1, 2, 3))


ARCHITECTURES: Table = {
    "real_nvp": lambda: Subject(RealNvp(6, 10), torch.randn(2, 6)),
    "glow": lambda: Subject(Glow(14, 2), image(8)),
}

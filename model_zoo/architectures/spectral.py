"""Layers over frequencies: Fourier operators, global filters, state spaces, complex positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_zoo.architectures.table import Table, image, tokens
from model_zoo.subjects import Subject


class SpectralConv(nn.Module):
    """A map for each of the lowest frequencies, and none for the others."""

    def __init__(self, channels: int, out: int, modes: int) -> None:
        super().__init__()
        shape = (channels, out, modes, modes, 2)
        self.low, self.high = nn.Parameter(torch.randn(shape)), nn.Parameter(torch.randn(shape))
        self.out, self.modes = out, modes

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        spectrum, m = torch.fft.rfft2(x), self.modes
        kept = torch.zeros(x.shape[0], self.out, height, width // 2 + 1, dtype=spectrum.dtype)
        low, high = torch.view_as_complex(self.low), torch.view_as_complex(self.high)
        kept[:, :, :m, :m] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, :m, :m], low)
        kept[:, :, -m:, :m] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, -m:, :m], high)
        return torch.fft.irfft2(kept, s=(height, width))


class FourierOperator(nn.Module):
    """A Fourier neural operator over a plane."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.lift = nn.Linear(3, width)
        self.spectral = nn.ModuleList(SpectralConv(width, width, modes) for _ in range(2))
        self.local = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(2))
        self.project = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x).permute(0, 3, 1, 2)
        for spectral, local in zip(self.spectral, self.local, strict=True):
            x = F.gelu(spectral(x) + local(x))
        return self.project(x.permute(0, 2, 3, 1))


class GlobalFilter(nn.Module):
    """A block that filters each channel over all places, and a perceptron."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(side, side // 2 + 1, width, 2) * 0.02)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[1:3]
        spectrum = torch.fft.rfft2(self.norm1(x), dim=(1, 2), norm="ortho")
        spectrum = spectrum * torch.view_as_complex(self.filter)
        y = torch.fft.irfft2(spectrum, s=size, dim=(1, 2), norm="ortho")
        return x + self.mlp(self.norm2(y))


class GlobalFilterNet(nn.Module):
    """A transformer of images whose attention is a filter."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.blocks = nn.Sequential(GlobalFilter(width, side), GlobalFilter(width, side))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.patches(x).permute(0, 2, 3, 1))
        return self.head(self.norm(x).mean((1, 2)))


class DiagonalStateSpace(nn.Module):
    """S4D: the kernel of a diagonal state space, convolved by Fourier transforms."""

    def __init__(self, width: int, states: int) -> None:
        super().__init__()
        self.log_step = nn.Parameter(torch.rand(width))
        self.c = nn.Parameter(torch.randn(width, states, 2))
        self.decay = nn.Parameter(torch.log(0.5 * torch.ones(width, states)))
        self.turn = nn.Parameter(math.pi * torch.arange(states).repeat(width, 1).float())
        self.skip = nn.Parameter(torch.randn(width))
        self.out = nn.Conv1d(width, 2 * width, 1)

    def forward(self, u: Tensor) -> Tensor:
        length = u.size(-1)
        a = torch.complex(-torch.exp(self.decay), self.turn)
        step = a * torch.exp(self.log_step).unsqueeze(-1)
        c = torch.view_as_complex(self.c) * (torch.exp(step) - 1.0) / a
        powers = torch.exp(step.unsqueeze(-1) * torch.arange(length))
        kernel = 2 * torch.einsum("hn,hnl->hl", c, powers).real
        spectrum = torch.fft.rfft(kernel, n=2 * length) * torch.fft.rfft(u, n=2 * length)
        y = torch.fft.irfft(spectrum, n=2 * length)[..., :length] + u * self.skip.unsqueeze(-1)
        return F.glu(self.out(F.gelu(y)), dim=-2)


class StateSpaceNet(nn.Module):
    """Layers of state spaces on a residual stream."""

    def __init__(self, width: int, states: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(2, width)
        self.layers = nn.ModuleList(DiagonalStateSpace(width, states) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.decoder = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x).mT
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + layer(norm(x.mT).mT)
        return self.decoder(x.mean(-1))


class ComplexRotary(nn.Module):
    """A decoder whose rotary positions are complex numbers, as LLaMA was first published."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.words, self.heads = nn.Embedding(40, width), heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, 40)
        side = width // heads
        speed = 1 / (100 ** (torch.arange(0, side, 2) / side))
        angles = torch.outer(torch.arange(16.0), speed)
        turns = torch.polar(torch.ones_like(angles), angles)
        self.register_buffer("turns", turns, persistent=False)
        self.turns: Tensor

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words)
        batch, length, _ = x.shape
        q, k, v = (f(x).view(batch, length, self.heads, -1) for f in (self.q, self.k, self.v))
        turns = self.turns[:length].view(1, length, 1, -1)
        q, k = (
            torch.view_as_real(
                torch.view_as_complex(y.reshape(*y.shape[:-1], -1, 2)) * turns
            ).flatten(3)
            for y in (q, k)
        )
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(batch, length, -1))
        return self.head(self.norm(x))


ARCHITECTURES: Table = {
    "fno2d": lambda: Subject(FourierOperator(10, 3), torch.randn(2, 8, 8, 3)),
    "gfnet": lambda: Subject(GlobalFilterNet(18, 8), image(32)),
    "s4d": lambda: Subject(StateSpaceNet(10, 4), torch.randn(2, 9, 2)),
    "llama_complex": lambda: Subject(ComplexRotary(32, 4), tokens(9, 40)),
}

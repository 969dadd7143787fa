"""Diffusion models and autoencoders of latent variables."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_zoo.architectures.table import Table, image
from model_zoo.subjects import Subject


def timestep_embedding(steps: Tensor, width: int) -> Tensor:
    """Sines and cosines of a step at several frequencies."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
    angles = steps[:, None].float() * frequencies[None]
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


class ResnetBlock(nn.Module):
    """Group norm, swish, convolution, twice; the time is added between."""

    def __init__(self, inside: int, outside: int, time: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(4, inside), nn.Conv2d(inside, outside, 3, padding=1)
        self.time = nn.Linear(time, outside)
        self.norm2, self.conv2 = nn.GroupNorm(4, outside), nn.Conv2d(outside, outside, 3, padding=1)
        self.shortcut = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(F.silu(time))[:, :, None, None]
        return self.conv2(F.silu(self.norm2(h))) + self.shortcut(x)


class SpatialAttention(nn.Module):
    """Self-attention over the places of a map, queries, keys and values by one convolution."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(4, channels)
        self.qkv = nn.Conv1d(channels, channels * 3, 1)
        self.proj = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, *space = x.shape
        x = x.reshape(b, c, -1)
        qkv = self.qkv(self.norm(x))
        width = c // self.heads
        q, k, v = qkv.reshape(b * self.heads, width * 3, -1).split(width, dim=1)
        scale = 1 / math.sqrt(math.sqrt(width))
        weight = torch.softmax(torch.einsum("bct,bcs->bts", q * scale, k * scale), dim=-1)
        h = torch.einsum("bts,bcs->bct", weight, v).reshape(b, c, -1)
        return (x + self.proj(h)).reshape(b, c, *space)


class DiffusionUNet(nn.Module):
    """The U-Net of DDPM: a stack of skips, time everywhere, attention at the coarse level."""

    def __init__(self, width: int) -> None:
        super().__init__()
        time, wide = 4 * width, 2 * width
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        self.down1, self.downsample = (
            ResnetBlock(width, width, time),
            nn.Conv2d(width, width, 3, 2, 1),
        )
        self.down2, self.down_attention = ResnetBlock(width, wide, time), SpatialAttention(wide, 2)
        self.mid1, self.mid_attention = ResnetBlock(wide, wide, time), SpatialAttention(wide, 1)
        self.mid2 = ResnetBlock(wide, wide, time)
        self.up2, self.up_attention = (
            ResnetBlock(wide + wide, wide, time),
            SpatialAttention(wide, 2),
        )
        self.upsample = nn.Conv2d(wide, wide, 3, padding=1)
        self.up1 = ResnetBlock(wide + width, width, time)
        self.norm_out, self.conv_out = nn.GroupNorm(4, width), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        time = self.time(timestep_embedding(steps, self.width).to(x.dtype))
        skips = []
        h = self.down1(self.conv_in(x), time)
        skips.append(h)
        h = self.down_attention(self.down2(self.downsample(h), time))
        skips.append(h)
        h = self.mid2(self.mid_attention(self.mid1(h, time)), time)
        h = self.up_attention(self.up2(torch.cat([h, skips.pop()], dim=1), time))
        h = self.upsample(F.interpolate(h, scale_factor=2, mode="nearest"))
        h = self.up1(torch.cat([h, skips.pop()], dim=1), time)
        return self.conv_out(F.silu(self.norm_out(h)))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Shift and scale of a sample over all its tokens."""
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class DiTBlock(nn.Module):
    """A transformer block whose norms are modulated and whose branches are gated."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width)
        )
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def attend(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, length, width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c).chunk(6, dim=1)
        x = x + gate1.unsqueeze(1) * self.attend(modulate(self.norm1(x), shift1, scale1))
        return x + gate2.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift2, scale2))


class DiT(nn.Module):
    """A diffusion transformer with classes."""

    def __init__(self, width: int, heads: int, classes: int) -> None:
        super().__init__()
        self.patch, self.side, self.width = 2, 4, width
        self.embed = nn.Conv2d(3, width, self.patch, self.patch)
        self.position = nn.Parameter(torch.zeros(1, self.side**2, width), requires_grad=False)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes, width)
        self.blocks = nn.ModuleList(DiTBlock(width, heads, 40) for _ in range(2))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.out = nn.Linear(width, self.patch**2 * 3)

    def forward(self, x: Tensor, steps: Tensor, label: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.position
        c = self.time(timestep_embedding(steps, self.width).to(x.dtype)) + self.label(label)
        for block in self.blocks:
            tokens = block(tokens, c)
        shift, scale = self.modulation(c).chunk(2, dim=1)
        tokens = self.out(modulate(self.norm(tokens), shift, scale))
        tokens = tokens.reshape(x.shape[0], self.side, self.side, self.patch, self.patch, 3)
        picture = torch.einsum("nhwpqc->nchpwq", tokens)
        return picture.reshape(x.shape[0], 3, self.side * self.patch, self.side * self.patch)


class Vae(nn.Module):
    """The convolutional variational autoencoder; the mean outside training."""

    def __init__(self, latent: int, widths: tuple[int, int]) -> None:
        super().__init__()
        a, b = widths
        self.encoder = nn.Sequential(
            nn.Conv2d(3, a, 3, 2, 1), nn.BatchNorm2d(a), nn.LeakyReLU(),
            nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.LeakyReLU(),
        )  # fmt: skip
        self.fc_mu, self.fc_var = nn.Linear(b * 16, latent), nn.Linear(b * 16, latent)
        self.decoder_input = nn.Linear(latent, b * 16)
        self.b = b
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(b, a, 3, 2, 1, output_padding=1), nn.BatchNorm2d(a), nn.LeakyReLU(),
            nn.ConvTranspose2d(a, a, 3, 2, 1, output_padding=1), nn.BatchNorm2d(a), nn.LeakyReLU(),
            nn.Conv2d(a, 3, 3, padding=1), nn.Tanh(),
        )  # fmt: skip

    def reparameterize(self, mu: Tensor, log_var: Tensor) -> Tensor:
        if not self.training:
            return mu
        return torch.randn_like(mu) * torch.exp(0.5 * log_var) + mu

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flat = torch.flatten(self.encoder(x), start_dim=1)
        mu, log_var = self.fc_mu(flat), self.fc_var(flat)
        z = self.decoder_input(self.reparameterize(mu, log_var)).view(-1, self.b, 4, 4)
        return self.decoder(z), mu, log_var


class MlpVae(nn.Module):
    """The autoencoder of the PyTorch examples, only its reconstruction read."""

    def __init__(self, hidden: int, latent: int) -> None:
        super().__init__()
        self.fc1, self.fc3 = nn.Linear(48, hidden), nn.Linear(latent, hidden)
        self.fc21, self.fc22 = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.fc4 = nn.Linear(hidden, 48)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.fc1(x.view(-1, 48)))
        z, log_var = self.fc21(h), self.fc22(h)
        if self.training:
            z = z + torch.exp(0.5 * log_var) * torch.randn_like(z)
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))


class VqVae(nn.Module):
    """The nearest code for every place, gradients passed straight through."""

    def __init__(self, width: int, code: int, codes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.before = nn.Conv2d(width, code, 1)
        self.codebook = nn.Embedding(codes, code)
        self.decoder = nn.Sequential(
            nn.Conv2d(code, width, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(width, 3, 4, 2, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.before(self.encoder(x)).permute(0, 2, 3, 1).contiguous()
        flat = z.view(-1, z.shape[-1])
        distances = (
            flat.pow(2).sum(1, keepdim=True)
            - 2 * flat @ self.codebook.weight.t()
            + self.codebook.weight.pow(2).sum(1)
        )
        nearest = distances.argmin(1)
        quantised = self.codebook(nearest).view(z.shape)
        quantised = z + (quantised - z).detach()
        picture = self.decoder(quantised.permute(0, 3, 1, 2).contiguous())
        return picture, nearest.view(z.shape[:-1])


ARCHITECTURES: Table = {
    "ddpm_unet": lambda: Subject(DiffusionUNet(16), (image(8), torch.tensor([3, 70]))),
    "dit": lambda: Subject(DiT(24, 4, 5), (image(8), torch.tensor([3, 70]), torch.tensor([1, 4]))),
    "vae": lambda: Subject(Vae(7, (8, 12)), image(16)),
    "mlp_vae": lambda: Subject(MlpVae(20, 6), torch.randn(2, 48)),
    "vq_vae": lambda: Subject(VqVae(12, 8, 10), image(8)),
}

"""Generators and discriminators."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from model_zoo.architectures.table import Table, image
from model_zoo.subjects import Subject


def dcgan_generator(latent: int, width: int) -> nn.Module:
    """The generator of the PyTorch tutorial, for images of 16 pixels."""
    return nn.Sequential(
        nn.ConvTranspose2d(latent, width * 4, 4, 1, 0, bias=False),
        nn.BatchNorm2d(width * 4),
        nn.ReLU(True),
        nn.ConvTranspose2d(width * 4, width * 2, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width * 2),
        nn.ReLU(True),
        nn.ConvTranspose2d(width * 2, 3, 4, 2, 1, bias=False),
        nn.Tanh(),
    )


def dcgan_discriminator(width: int) -> nn.Module:
    """The discriminator of the PyTorch tutorial, for images of 16 pixels."""
    return nn.Sequential(
        nn.Conv2d(3, width, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(width, width * 2, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width * 2),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(width * 2, 1, 4, 1, 0, bias=False),
        nn.Sigmoid(),
    )


class SpectralDiscriminator(nn.Module):
    """Every convolution under spectral norm; a label is projected onto the features."""

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.conv1 = spectral_norm(nn.Conv2d(3, width, 3, 2, 1))
        self.conv2 = spectral_norm(nn.Conv2d(width, 2 * width, 3, 2, 1))
        self.fc = spectral_norm(nn.Linear(2 * width, 1))
        self.embed = nn.Embedding(labels, 2 * width)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x)))).sum(dim=(2, 3))
        return self.fc(x) + (self.embed(label) * x).sum(dim=1, keepdim=True)


class ResnetGenerator(nn.Module):
    """The generator of CycleGAN: reflections at the border, instance norm, residual blocks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Sequential(
            nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width), nn.ReLU(True),
            nn.Conv2d(width, 2 * width, 3, 2, 1), nn.InstanceNorm2d(2 * width), nn.ReLU(True),
        )  # fmt: skip
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReflectionPad2d(1), nn.Conv2d(2 * width, 2 * width, 3),
                nn.InstanceNorm2d(2 * width), nn.ReLU(True), nn.ReflectionPad2d(1),
                nn.Conv2d(2 * width, 2 * width, 3), nn.InstanceNorm2d(2 * width),
            )
            for _ in range(2)
        )  # fmt: skip
        self.tail = nn.Sequential(
            nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1),
            nn.InstanceNorm2d(width), nn.ReLU(True), nn.ReflectionPad2d(3),
            nn.Conv2d(width, 3, 7), nn.Tanh(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        for block in self.blocks:
            x = x + block(x)
        return self.tail(x)


class DenseBlock(nn.Module):
    """The residual dense block of ESRGAN."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, growth, 3, 1, 1)
        self.conv2 = nn.Conv2d(width + growth, growth, 3, 1, 1)
        self.conv3 = nn.Conv2d(width + 2 * growth, width, 3, 1, 1)
        self.lrelu = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.lrelu(self.conv1(x))
        x2 = self.lrelu(self.conv2(torch.cat((x, x1), 1)))
        return self.conv3(torch.cat((x, x1, x2), 1)) * 0.2 + x


class SuperResolution(nn.Module):
    """Residual dense blocks, then a pixel shuffle."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, 1, 1)
        self.body = nn.Sequential(*(DenseBlock(width, growth) for _ in range(2)))
        self.after = nn.Conv2d(width, width, 3, 1, 1)
        self.up = nn.Sequential(
            nn.Conv2d(width, 4 * width, 3, 1, 1), nn.PixelShuffle(2), nn.PReLU()
        )
        self.last = nn.Conv2d(width, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(self.up(x + self.after(self.body(x))))


class ConditionalBatchNorm(nn.Module):
    """Gain and bias of a batch norm looked up by the class."""

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.width = width
        self.bn = nn.BatchNorm2d(width, affine=False)
        self.embed = nn.Embedding(labels, width * 2)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        gamma, beta = self.embed(label).chunk(2, 1)
        return gamma.view(-1, self.width, 1, 1) * self.bn(x) + beta.view(-1, self.width, 1, 1)


class ConditionalGenerator(nn.Module):
    """A SAGAN-like generator: a linear to a map, conditional norms, self-attention."""

    def __init__(self, latent: int, width: int, labels: int) -> None:
        super().__init__()
        self.width = width
        self.linear = nn.Linear(latent, width * 16)
        self.norm1, self.conv1 = ConditionalBatchNorm(width, labels), nn.Conv2d(width, 12, 3, 1, 1)
        self.query, self.key = nn.Conv2d(12, 6, 1), nn.Conv2d(12, 6, 1)
        self.value, self.gamma = nn.Conv2d(12, 12, 1), nn.Parameter(torch.zeros(1))
        self.norm2, self.conv2 = ConditionalBatchNorm(12, labels), nn.Conv2d(12, 3, 3, 1, 1)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        x = self.linear(z).view(-1, self.width, 4, 4)
        x = self.conv1(F.interpolate(F.relu(self.norm1(x, label)), scale_factor=2))
        batch, channels, height, width = x.size()
        query = self.query(x).view(batch, -1, height * width).permute(0, 2, 1)
        attention = torch.softmax(torch.bmm(query, self.key(x).view(batch, -1, height * width)), -1)
        value = self.value(x).view(batch, -1, height * width)
        y = torch.bmm(value, attention.permute(0, 2, 1)).view(batch, channels, height, width)
        x = self.gamma * y + x
        return torch.tanh(self.conv2(F.relu(self.norm2(x, label))))


class EqualLinear(nn.Module):
    """A linear layer whose scale is taken from its width when it runs."""

    def __init__(self, inside: int, outside: int, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outside, inside))
        self.bias = nn.Parameter(torch.full((outside,), bias))
        self.scale = 1 / math.sqrt(inside)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias)


class ModulatedConv(nn.Module):
    """A kernel of its own for each sample, run as one grouped convolution."""

    def __init__(self, inside: int, outside: int, style: int, demodulate: bool) -> None:
        super().__init__()
        self.inside, self.outside, self.demodulate = inside, outside, demodulate
        kernel = 3 if demodulate else 1
        self.padding, self.scale = kernel // 2, 1 / math.sqrt(inside * kernel**2)
        self.weight = nn.Parameter(torch.randn(1, outside, inside, kernel, kernel))
        self.modulation = EqualLinear(style, inside, bias=1.0)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        style = self.modulation(style).view(batch, 1, self.inside, 1, 1)
        weight = self.scale * self.weight * style
        if self.demodulate:
            demod = torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + 1e-8)
            weight = weight * demod.view(batch, self.outside, 1, 1, 1)
        weight = weight.view(batch * self.outside, self.inside, *weight.shape[3:])
        x = x.reshape(1, batch * self.inside, height, width)
        x = F.conv2d(x, weight, padding=self.padding, groups=batch)
        return x.view(batch, self.outside, height, width)


class StyledConv(nn.Module):
    """Modulated convolution, noise with a learned strength, bias, leaky relu."""

    def __init__(self, inside: int, outside: int, style: int, side: int) -> None:
        super().__init__()
        self.conv = ModulatedConv(inside, outside, style, demodulate=True)
        self.noise_strength = nn.Parameter(torch.zeros(1))
        self.register_buffer("noise", torch.randn(1, 1, side, side))
        self.noise: Tensor
        self.bias = nn.Parameter(torch.zeros(outside))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        x = self.conv(x, style) + self.noise_strength * self.noise
        return F.leaky_relu(x + self.bias.view(1, -1, 1, 1), 0.2) * math.sqrt(2)


class StyleGenerator(nn.Module):
    """StyleGAN 2: mapping network, learned constant, styled convolutions, summed images."""

    def __init__(self, latent: int, style: int, widths: tuple[int, int]) -> None:
        super().__init__()
        self.mapping = nn.ModuleList([EqualLinear(latent, style), EqualLinear(style, style)])
        self.constant = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        self.conv1 = StyledConv(widths[0], widths[0], style, 4)
        self.rgb1 = ModulatedConv(widths[0], 3, style, demodulate=False)
        self.conv2 = StyledConv(widths[0], widths[1], style, 8)
        self.rgb2 = ModulatedConv(widths[1], 3, style, demodulate=False)

    def forward(self, z: Tensor) -> Tensor:
        w = z * torch.rsqrt(torch.mean(z**2, dim=1, keepdim=True) + 1e-8)
        for layer in self.mapping:
            w = F.leaky_relu(layer(w), 0.2)
        x = self.conv1(self.constant.repeat(z.shape[0], 1, 1, 1), w)
        picture = self.rgb1(x, w)
        x = self.conv2(F.interpolate(x, scale_factor=2, mode="bilinear"), w)
        return F.interpolate(picture, scale_factor=2, mode="bilinear") + self.rgb2(x, w)


ARCHITECTURES: Table = {
    "dcgan_generator": lambda: Subject(dcgan_generator(12, 6), torch.randn(2, 12, 1, 1)),
    "dcgan_discriminator": lambda: Subject(dcgan_discriminator(8), image(16)),
    "spectral_discriminator": lambda: Subject(
        SpectralDiscriminator(8, 4), (image(16), torch.tensor([1, 3]))
    ),
    "cycle_gan_generator": lambda: Subject(ResnetGenerator(8), image(16)),
    "esrgan": lambda: Subject(SuperResolution(10, 6), image(8)),
    "conditional_generator": lambda: Subject(
        ConditionalGenerator(10, 14, 5), (torch.randn(2, 10), torch.tensor([1, 3]))
    ),
    "style_gan_generator": lambda: Subject(StyleGenerator(10, 14, (12, 8)), torch.randn(2, 10)),
}

"""Encoders and decoders with skips between them: segmentation nets."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_zoo.architectures.table import Table, image
from model_zoo.subjects import Subject


class DoubleConv(nn.Module):
    """(convolution, batch norm, relu) twice."""

    def __init__(self, inside: int, outside: int, middle: int | None = None) -> None:
        super().__init__()
        middle = middle or outside
        self.double_conv = nn.Sequential(
            nn.Conv2d(inside, middle, 3, padding=1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


class Up(nn.Module):
    """Upsample, pad to the skip's size, concatenate, convolve."""

    def __init__(self, inside: int, outside: int, bilinear: bool) -> None:
        super().__init__()
        self.up: nn.Module
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = DoubleConv(inside, outside, inside // 2)
        else:
            self.up = nn.ConvTranspose2d(inside, inside // 2, kernel_size=2, stride=2)
            self.conv = DoubleConv(inside, outside)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        x1 = self.up(x1)
        height, width = x2.size(2) - x1.size(2), x2.size(3) - x1.size(3)
        x1 = F.pad(x1, [width // 2, width - width // 2, height // 2, height - height // 2])
        return self.conv(torch.cat([x2, x1], dim=1))


class UNet(nn.Module):
    """The plain U-Net, by transposed convolution or bilinear upsampling."""

    def __init__(self, classes: int, width: int, bilinear: bool) -> None:
        super().__init__()
        factor = 2 if bilinear else 1
        self.inc = DoubleConv(3, width)
        self.down1 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(width, 2 * width))
        self.down2 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(2 * width, 4 * width // factor))
        self.up1 = Up(4 * width, 2 * width // factor, bilinear)
        self.up2 = Up(2 * width, width, bilinear)
        self.outc = nn.Conv2d(width, classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        return self.outc(self.up2(self.up1(x3, x2), x1))


class AttentionGate(nn.Module):
    """One map between 0 and 1 for the skip, from the skip and the coarser features."""

    def __init__(self, gate: int, skip: int, middle: int) -> None:
        super().__init__()
        self.w_g = nn.Sequential(nn.Conv2d(gate, middle, 1), nn.BatchNorm2d(middle))
        self.w_x = nn.Sequential(nn.Conv2d(skip, middle, 1), nn.BatchNorm2d(middle))
        self.psi = nn.Sequential(nn.Conv2d(middle, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())
        self.relu = nn.ReLU(inplace=True)

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        return x * self.psi(self.relu(self.w_g(g) + self.w_x(x)))


class AttentionUNet(nn.Module):
    """A U-Net whose skips pass attention gates."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = DoubleConv(3, 8), DoubleConv(8, 14), DoubleConv(14, 20)
        self.pool = nn.MaxPool2d(2, 2)
        self.up3 = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(20, 14, 3, padding=1))
        self.att3, self.up_conv3 = AttentionGate(14, 14, 7), DoubleConv(28, 14)
        self.up2 = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(14, 8, 3, padding=1))
        self.att2, self.up_conv2 = AttentionGate(8, 8, 4), DoubleConv(16, 8)
        self.final = nn.Conv2d(8, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        e1 = self.conv1(x)
        e2 = self.conv2(self.pool(e1))
        e3 = self.conv3(self.pool(e2))
        d3 = self.up3(e3)
        d3 = self.up_conv3(torch.cat((self.att3(g=d3, x=e2), d3), dim=1))
        d2 = self.up2(d3)
        d2 = self.up_conv2(torch.cat((self.att2(g=d2, x=e1), d2), dim=1))
        return self.final(d2)


class NestedUNet(nn.Module):
    """U-Net++: every node reads all earlier nodes of its level; an answer at each."""

    def __init__(self, classes: int, supervised: bool) -> None:
        super().__init__()
        widths = [8, 10, 14]
        self.supervised = supervised
        self.pool = nn.MaxPool2d(2, 2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.conv0_0 = DoubleConv(3, widths[0])
        self.conv1_0 = DoubleConv(widths[0], widths[1])
        self.conv2_0 = DoubleConv(widths[1], widths[2])
        self.conv0_1 = DoubleConv(widths[0] + widths[1], widths[0])
        self.conv1_1 = DoubleConv(widths[1] + widths[2], widths[1])
        self.conv0_2 = DoubleConv(widths[0] * 2 + widths[1], widths[0])
        self.final1 = nn.Conv2d(widths[0], classes, kernel_size=1)
        self.final2 = nn.Conv2d(widths[0], classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        x0_0 = self.conv0_0(x)
        x1_0 = self.conv1_0(self.pool(x0_0))
        x0_1 = self.conv0_1(torch.cat([x0_0, self.up(x1_0)], 1))
        x2_0 = self.conv2_0(self.pool(x1_0))
        x1_1 = self.conv1_1(torch.cat([x1_0, self.up(x2_0)], 1))
        x0_2 = self.conv0_2(torch.cat([x0_0, x0_1, self.up(x1_1)], 1))
        if self.supervised:
            return [self.final1(x0_1), self.final2(x0_2)]
        return self.final2(x0_2)


class ResidualUnit3d(nn.Module):
    """The unit of 3-d medical U-Nets: instance norm, PReLU, a convolution on the residual."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inside, outside, 3, stride, padding=1)
        self.norm1, self.act1 = nn.InstanceNorm3d(outside), nn.PReLU()
        self.conv2 = nn.Conv3d(outside, outside, 3, padding=1)
        self.norm2, self.act2 = nn.InstanceNorm3d(outside), nn.PReLU()
        self.residual = nn.Conv3d(inside, outside, 3 if stride > 1 else 1, stride, stride // 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.norm1(self.conv1(x)))
        return self.act2(self.norm2(self.conv2(y))) + self.residual(x)


class VolumeUNet(nn.Module):
    """A residual U-Net over volumes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.down1, self.down2 = ResidualUnit3d(1, 6, 1), ResidualUnit3d(6, 10, 2)
        self.bottom = ResidualUnit3d(10, 14, 2)
        self.up2 = nn.ConvTranspose3d(14, 10, 2, 2)
        self.merge2 = ResidualUnit3d(20, 8, 1)
        self.up1 = nn.ConvTranspose3d(8, 6, 2, 2)
        self.out = nn.Conv3d(12, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(first)
        y = torch.cat([second, self.up2(self.bottom(second))], dim=1)
        y = torch.cat([first, self.up1(self.merge2(y))], dim=1)
        return self.out(y)


class SegNet(nn.Module):
    """Max pooling whose places are used again to unpool."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encode1, self.encode2 = DoubleConv(3, 8), DoubleConv(8, 12)
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)
        self.decode2, self.decode1 = DoubleConv(12, 8), DoubleConv(8, 6)
        self.classify = nn.Conv2d(6, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, places1 = self.pool(self.encode1(x))
        x, places2 = self.pool(self.encode2(x))
        x = self.decode2(self.unpool(x, places2))
        return self.classify(self.decode1(self.unpool(x, places1)))


ARCHITECTURES: Table = {
    "unet": lambda: Subject(UNet(2, 8, bilinear=False), image(16)),
    "unet_bilinear": lambda: Subject(UNet(2, 8, bilinear=True), image(18)),
    "attention_unet": lambda: Subject(AttentionUNet(2), image(16)),
    "unet_plus_plus": lambda: Subject(NestedUNet(2, supervised=False), image(16)),
    "unet_plus_plus_supervised": lambda: Subject(NestedUNet(2, supervised=True), image(16)),
    "unet_3d": lambda: Subject(VolumeUNet(3), torch.randn(2, 1, 8, 8, 8)),
    "segnet": lambda: Subject(SegNet(4), image(16)),
}

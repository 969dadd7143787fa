"""Convolutions over time: causal, dilated, gated; forecasters; recurrence over images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from model_zoo.architectures.table import Table
from model_zoo.subjects import Subject


class Chomp(nn.Module):
    """Cut off what padding added at the end, so that the convolution is causal."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, : -self.size].contiguous()


class TemporalBlock(nn.Module):
    """Two dilated causal convolutions under weight norm, and a residual."""

    def __init__(self, inside: int, outside: int, kernel: int, dilation: int) -> None:
        super().__init__()
        padding = (kernel - 1) * dilation
        self.net = nn.Sequential(
            weight_norm(nn.Conv1d(inside, outside, kernel, padding=padding, dilation=dilation)),
            Chomp(padding), nn.ReLU(), nn.Dropout(0.2),
            weight_norm(nn.Conv1d(outside, outside, kernel, padding=padding, dilation=dilation)),
            Chomp(padding), nn.ReLU(), nn.Dropout(0.2),
        )  # fmt: skip
        self.downsample = nn.Conv1d(inside, outside, 1) if inside != outside else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.downsample is None else self.downsample(x)
        return self.relu(self.net(x) + residual)


class Tcn(nn.Module):
    """The temporal convolutional network of Bai et al."""

    def __init__(self, inputs: int, widths: list[int], classes: int) -> None:
        super().__init__()
        layers = [
            TemporalBlock(inside, outside, kernel=3, dilation=2**level)
            for level, (inside, outside) in enumerate(zip([inputs, *widths], widths, strict=False))
        ]
        self.network = nn.Sequential(*layers)
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.network(x)[:, :, -1])


class WaveNet(nn.Module):
    """Gated dilated layers; residual and skip leave each, the skips are summed."""

    def __init__(self, levels: int, residual: int, dilation: int, skip: int) -> None:
        super().__init__()
        self.start = nn.Conv1d(levels, residual, 1)
        self.dilations = [1, 2, 4]
        self.filters = nn.ModuleList(
            nn.Conv1d(residual, dilation, 2, dilation=d) for d in self.dilations
        )
        self.gates = nn.ModuleList(
            nn.Conv1d(residual, dilation, 2, dilation=d) for d in self.dilations
        )
        self.residuals = nn.ModuleList(nn.Conv1d(dilation, residual, 1) for _ in self.dilations)
        self.skips = nn.ModuleList(nn.Conv1d(dilation, skip, 1) for _ in self.dilations)
        self.end1, self.end2 = nn.Conv1d(skip, 14, 1), nn.Conv1d(14, levels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        total: Tensor | float = 0.0
        for i, dilation in enumerate(self.dilations):
            padded = F.pad(x, (dilation, 0))
            y = torch.tanh(self.filters[i](padded)) * torch.sigmoid(self.gates[i](padded))
            total = total + self.skips[i](y)
            x = x + self.residuals[i](y)
        return self.end2(F.relu(self.end1(F.relu(total))))


class ConvTasNet(nn.Module):
    """Separation of two speakers: learned filters, masks from depthwise blocks, and back."""

    def __init__(self, filters: int, bottleneck: int, hidden: int, speakers: int) -> None:
        super().__init__()
        self.filters, self.speakers = filters, speakers
        self.encoder = nn.Conv1d(1, filters, 4, 2, bias=False)
        self.norm = nn.GroupNorm(1, filters)
        self.bottleneck = nn.Conv1d(filters, bottleneck, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(bottleneck, hidden, 1), nn.PReLU(), nn.GroupNorm(1, hidden),
                nn.Conv1d(hidden, hidden, 3, padding=d, dilation=d, groups=hidden), nn.PReLU(),
                nn.GroupNorm(1, hidden), nn.Conv1d(hidden, bottleneck, 1),
            )
            for d in (1, 2)
        )  # fmt: skip
        self.mask = nn.Conv1d(bottleneck, filters * speakers, 1)
        self.decoder = nn.ConvTranspose1d(filters, 1, 4, 2, bias=False)

    def forward(self, mixture: Tensor) -> Tensor:
        coded = F.relu(self.encoder(mixture.unsqueeze(1)))
        x = self.bottleneck(self.norm(coded))
        for block in self.blocks:
            x = x + block(x)
        masks = torch.relu(self.mask(x)).view(x.shape[0], self.speakers, self.filters, -1)
        masked = masks * coded.unsqueeze(1)
        masked = masked.view(x.shape[0] * self.speakers, self.filters, -1)
        return self.decoder(masked).view(x.shape[0], self.speakers, -1)


class NBeatsBlock(nn.Module):
    """Four layers, then how the window is explained and how it goes on."""

    def __init__(self, window: int, horizon: int, hidden: int, basis: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(window if i == 0 else hidden, hidden) for i in range(4)
        )
        self.theta_b = nn.Linear(hidden, basis, bias=False)
        self.theta_f = nn.Linear(hidden, basis, bias=False)
        self.backcast, self.forecast = nn.Linear(basis, window), nn.Linear(basis, horizon)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.backcast(self.theta_b(x)), self.forecast(self.theta_f(x))


class NBeats(nn.Module):
    """Blocks that explain what earlier ones left over; their forecasts are summed."""

    def __init__(self, window: int, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon
        self.blocks = nn.ModuleList(NBeatsBlock(window, horizon, 16, 6) for _ in range(2))

    def forward(self, window: Tensor) -> Tensor:
        forecast = torch.zeros(window.shape[0], self.horizon, dtype=window.dtype)
        for block in self.blocks:
            backcast, ahead = block(window)
            window = window - backcast
            forecast = forecast + ahead
        return forecast


class ConvLstmCell(nn.Module):
    """An LSTM whose products are convolutions."""

    def __init__(self, inside: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.conv = nn.Conv2d(inside + hidden, 4 * hidden, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden, cell = state
        combined = self.conv(torch.cat([x, hidden], dim=1))
        i, f, o, g = torch.split(combined, self.hidden, dim=1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell), cell

    def start(self, batch: int, side: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        shape = (batch, self.hidden, side, side)
        return torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)


class ConvLstm(nn.Module):
    """Two stacked cells over the frames of a clip; the next frame."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.cell1, self.cell2 = ConvLstmCell(1, first, 3), ConvLstmCell(first, second, 3)
        self.out = nn.Conv2d(second, 1, 3, padding=1)

    def forward(self, clip: Tensor) -> Tensor:
        batch, frames, _, side, _ = clip.shape
        first = self.cell1.start(batch, side, clip.dtype)
        second = self.cell2.start(batch, side, clip.dtype)
        for t in range(frames):
            first = self.cell1(clip[:, t], first)
            second = self.cell2(first[0], second)
        return torch.sigmoid(self.out(second[0]))


class QuartzNet(nn.Module):
    """Separable convolutions over time in residual blocks."""

    def __init__(self, bins: int, width: int, letters: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(bins, width, 5, 2, 2), nn.BatchNorm1d(width), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, width, 5, padding=2, groups=width), nn.Conv1d(width, width, 1),
                nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.1),
                nn.Conv1d(width, width, 5, padding=2, groups=width), nn.Conv1d(width, width, 1),
                nn.BatchNorm1d(width),
            )
            for _ in range(2)
        )  # fmt: skip
        self.head = nn.Conv1d(width, letters, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = F.relu(x + block(x))
        return F.log_softmax(self.head(x), dim=1)


ARCHITECTURES: Table = {
    "tcn": lambda: Subject(Tcn(3, [10, 14], 5), torch.randn(2, 3, 14)),
    "wave_net": lambda: Subject(WaveNet(9, 8, 10, 12), torch.randn(2, 9, 12)),
    "conv_tas_net": lambda: Subject(ConvTasNet(14, 10, 16, 2), torch.randn(2, 42)),
    "n_beats": lambda: Subject(NBeats(11, 4), torch.randn(2, 11)),
    "conv_lstm": lambda: Subject(ConvLstm(8, 6), torch.randn(2, 3, 1, 6, 6)),
    "quartz_net": lambda: Subject(QuartzNet(9, 14, 7), torch.randn(2, 9, 20)),
}

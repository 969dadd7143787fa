"""Single layers for tensors of any rank: convolutions, linear layers, norms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from .values import WIDTHS, Fixed, Option, Value, divisors, rank_in, spread

CONVOLUTIONS = {2: nn.Conv1d, 3: nn.Conv2d, 4: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose1d, 3: nn.ConvTranspose2d, 4: nn.ConvTranspose3d}
FUNCTIONS = {2: F.conv1d, 3: F.conv2d, 4: F.conv3d}
BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d, 4: nn.BatchNorm3d}
INSTANCE_NORMS = {2: nn.InstanceNorm1d, 3: nn.InstanceNorm2d, 4: nn.InstanceNorm3d}


FORMS = (
    "product", "functional", "einsum", "low rank", "stacked", "scaled", "sliced", "positive bias",
)  # fmt: skip


class FunctionalConvolution(nn.Module):
    """A convolution by its function, with parameters of plain names."""

    def __init__(
        self, rank: int, width: int, inside: int, kernel: int, groups: int, positive: bool
    ) -> None:
        super().__init__()
        self.positive = positive
        self.kernels = nn.Parameter(torch.zeros(width, inside, *[kernel] * (rank - 1)))
        self.shift = nn.Parameter(torch.zeros(width))
        self.function, self.padding, self.groups = FUNCTIONS[rank], kernel // 2, groups

    def forward(self, x: Tensor) -> Tensor:
        shift = self.shift.exp() if self.positive else self.shift
        return self.function(x, self.kernels, shift, padding=self.padding, groups=self.groups)


@dataclass(frozen=True)
class Convolution:
    """A convolution over all dimensions but the first, which are padded by half a kernel."""

    width: int
    kernel: int
    stride: int = 1
    groups: int = 1
    bias: bool = True
    form: Literal[
        "plain", "same", "circular", "transposed", "functional", "positive bias", "weight norm"
    ] = "plain"

    def build(self, values: Sequence[Value]) -> nn.Module:
        (x,) = values
        channels, padding = x.shape[0], self.kernel // 2
        if self.form in ("functional", "positive bias"):
            inside, positive = channels // self.groups, self.form == "positive bias"
            return FunctionalConvolution(
                x.rank, self.width, inside, self.kernel, self.groups, positive
            )
        if self.form == "transposed":
            return TRANSPOSED[x.rank](
                channels, self.width, self.kernel, self.stride, padding, 0, self.groups, self.bias
            )
        layer = CONVOLUTIONS[x.rank](
            channels,
            self.width,
            self.kernel,
            self.stride,
            padding="same" if self.form == "same" else padding,
            groups=self.groups,
            bias=self.bias,
            padding_mode="circular" if self.form == "circular" else "zeros",
        )
        return weight_norm(layer) if self.form == "weight norm" else layer

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        (x,) = values
        still = self.kernel == 1 and self.stride == 1
        return ((False, *(x.fixed[1:] if still else (True,) * (x.rank - 1))),)


def convolutions(draw: st.DrawFn, x: Value) -> Convolution:
    """Plain, grouped and depth-wise ones, with strides and kernels of 1 and 3."""
    channels = x.shape[0]
    groups = draw(st.sampled_from([1, 1, *divisors(channels)]))
    width = groups * draw(st.integers(1, max(1, 8 // groups)))
    kernel = draw(st.sampled_from([1, 3]))
    stride = draw(st.sampled_from([1, 1, 2])) if min(x.shape[1:]) > 2 else 1
    forms = ["plain", "plain", "transposed", "weight norm"]
    if stride == 1:
        forms += ["functional", "positive bias", "same"]
        forms += ["circular"] if min(x.shape[1:]) > 1 else []
    form = draw(st.sampled_from(forms))
    return Convolution(max(width, 2), kernel, stride, groups if width > 1 else 1,
                       draw(st.booleans()), form)  # type: ignore[arg-type]  # fmt: skip


class Product(nn.Module):
    """A linear layer written as a product of matrices, or with a matrix made of parts."""

    def __init__(self, inside: int, width: int, form: str) -> None:
        super().__init__()
        self.form = form
        self.matrix = nn.Parameter(torch.zeros(inside, width))
        self.shift = nn.Parameter(torch.zeros(width))
        if form == "low rank":
            self.matrix = nn.Parameter(torch.zeros(width, 3))
            self.narrow = nn.Parameter(torch.zeros(3, inside))
        elif form == "stacked":
            self.matrix = nn.Parameter(torch.zeros(width // 2, inside))
            self.lower = nn.Parameter(torch.zeros(width - width // 2, inside))
        elif form == "scaled":
            self.scale = nn.Parameter(torch.zeros(width))
        elif form == "sliced":
            self.matrix = nn.Parameter(torch.zeros(width, inside + 2))

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "low rank":
            return F.linear(x, self.matrix @ self.narrow, self.shift)
        if self.form == "stacked":
            return F.linear(x, torch.cat([self.matrix, self.lower]), self.shift)
        if self.form == "scaled":
            return F.linear(x, self.matrix.t() * self.scale[:, None], self.shift)
        if self.form == "sliced":
            return F.linear(x, self.matrix[:, 2:], self.shift)
        if self.form == "einsum":
            places = "jkl"[: x.dim() - 2]
            return torch.einsum(f"b{places}i,io->b{places}o", x, self.matrix) + self.shift
        if self.form in ("functional", "positive bias"):
            shift = self.shift if self.form == "functional" else self.shift.sigmoid()
            return F.linear(x, self.matrix.t(), shift)
        if x.dim() == 2:
            return torch.addmm(self.shift, x, self.matrix)
        return x @ self.matrix + self.shift


@dataclass(frozen=True)
class Linear:
    """A linear layer over the last dimension."""

    width: int
    bias: bool = True
    form: Literal[
        "layer", "product", "functional", "einsum", "low rank", "stacked", "scaled", "sliced",
        "positive bias",
    ] = "layer"  # fmt: skip

    def build(self, values: Sequence[Value]) -> nn.Module:
        inside = values[0].shape[-1]
        if self.form == "layer":
            return nn.Linear(inside, self.width, self.bias)
        return Product(inside, self.width, self.form)

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        return ((*values[0].fixed[:-1], False),)


def linears(draw: st.DrawFn, x: Value) -> Linear:
    """Half of them layers."""
    form = "layer"
    if draw(st.booleans()):
        form = draw(st.sampled_from(FORMS))
    return Linear(draw(WIDTHS), draw(st.booleans()), form)  # type: ignore[arg-type]


class LastNorm(nn.Module):
    """A layer norm over dimension 1 by way of the last, as ConvNeXt has it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


@dataclass(frozen=True)
class Norm:
    """A normalisation; ``size``: groups of a group norm, dimensions of a layer or RMS norm."""

    kind: Literal[
        "batch", "bare batch", "layer", "rms", "channels", "group", "instance", "bare instance"
    ]
    size: int = 1

    def build(self, values: Sequence[Value]) -> nn.Module:
        (x,) = values
        channels = x.shape[0]
        if self.kind in ("batch", "bare batch"):
            return BATCH_NORMS[x.rank](channels, affine=self.kind == "batch")
        if self.kind == "group":
            return nn.GroupNorm(self.size, channels)
        if self.kind in ("instance", "bare instance"):
            return INSTANCE_NORMS[x.rank](channels, affine=self.kind == "instance")
        if self.kind == "channels":
            return LastNorm(channels)
        over = list(x.shape[-self.size :])
        return nn.LayerNorm(over) if self.kind == "layer" else nn.RMSNorm(over)

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        return (values[0].fixed,)


def norms(draw: st.DrawFn, x: Value) -> Norm:
    """Norms whose statistic the oracle knows: no image dimension that may leave."""
    kinds = ["layer", "rms"]
    image_stays = all(x.fixed[1:])
    if image_stays:  # in train mode a batch norm runs over the image as well
        kinds += ["batch", "bare batch", "group"]
    if x.rank > 1:
        kinds.append("channels")
        if image_stays and max(x.shape[1:]) > 1:
            kinds += ["instance", "bare instance"]
    kind = draw(st.sampled_from(kinds))
    size = 1
    if kind == "group":
        size = draw(st.sampled_from(divisors(x.shape[0])))
    elif kind in ("layer", "rms"):
        size = draw(st.sampled_from([1, 1, x.rank]))
    return Norm(kind, size)  # type: ignore[arg-type]


class Scaled(nn.Module):
    """A parameter along one dimension, multiplied or added."""

    def __init__(self, dim: int, size: int, added: bool) -> None:
        super().__init__()
        self.dim, self.added = dim, added
        self.vector = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        vector = spread(self.vector, self.dim, x.dim())
        return x + vector if self.added else x * vector


@dataclass(frozen=True)
class Scale:
    """A layer scale or a shift: one number for each index of dimension ``dim``."""

    dim: int
    added: bool

    def build(self, values: Sequence[Value]) -> nn.Module:
        return Scaled(self.dim, values[0].shape[self.dim - 1], self.added)

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        return (values[0].fixed,)


def scales(draw: st.DrawFn, x: Value) -> Scale:
    """Along any dimension but the batch."""
    return Scale(draw(st.integers(1, x.rank)), draw(st.booleans()))


@dataclass(frozen=True)
class Embedding:
    """Token numbers to vectors."""

    width: int

    def build(self, values: Sequence[Value]) -> nn.Module:
        return nn.Embedding(values[0].vocabulary, self.width)

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        return ((*values[0].fixed, False),)


LAYERS = (
    Option(rank_in(1, 2, 3, 4), linears),
    Option(rank_in(2, 3), convolutions),
    Option(rank_in(1, 2, 3, 4), norms),
    Option(rank_in(1, 2, 3, 4), scales),
)

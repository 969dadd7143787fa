"""Normalisations: per channel, per group of channels, across all channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .table import Entry, Expected, Slices, batchnorm, cols, floats, norm, rows, survivors


class LayerNormMlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 10)
        self.norm1 = nn.LayerNorm(10)
        self.fc1 = nn.Linear(10, 14)
        self.fc2 = nn.Linear(14, 10)
        self.norm2 = nn.LayerNorm(10)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.fc2(F.gelu(self.fc1(self.norm1(x))))
        return self.head(self.norm2(x))


class RmsNorm(nn.Module):
    """The hand-written form of the language models."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def mean_square(self, x: Tensor) -> Tensor:
        return x.pow(2).mean(-1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(self.mean_square(x) + 1e-6))


class RmsMlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 9)
        self.norm1 = RmsNorm(9)
        self.fc1 = nn.Linear(9, 13, bias=False)
        self.fc2 = nn.Linear(13, 9, bias=False)
        self.norm2 = RmsNorm(9)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.fc2(F.silu(self.fc1(self.norm1(x))))
        return self.head(self.norm2(x))


def rms_reference(model: nn.Module, kept: Slices) -> nn.Module:
    """Every hand-written RMS norm averages over the survivors of its own weight."""
    for name, module in list(model.named_modules()):
        if isinstance(module, RmsNorm):
            alive = survivors(kept, f"{name}.weight", 0, module.weight.numel())
            module.mean_square = (  # type: ignore[method-assign]
                lambda x, alive=alive: x[..., alive].pow(2).mean(-1, keepdim=True)
            )
    return model


class StandardisedConv(nn.Conv2d):
    """Every filter has mean 0 and variance 1, by way of a batch norm over the weight."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(inside, outside, 3)
        self.gain = nn.Parameter(torch.ones(outside))

    def standardise(self, weight: Tensor) -> Tensor:
        flat = weight.reshape(1, weight.shape[0], -1)
        flat = F.batch_norm(flat, None, None, weight=self.gain, training=True, momentum=0.0)
        return flat.reshape_as(weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.standardise(self.weight), self.bias)


class StandardisedWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.conv = StandardisedConv(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(F.relu(self.stem(x)))).mean((2, 3)))


def standardised_reference(model: nn.Module, kept: Slices) -> nn.Module:
    """Filters are standardised over the input channels that survive."""
    conv = model.get_submodule("conv")
    assert isinstance(conv, StandardisedConv)
    alive = survivors(kept, "conv.weight", 1, 6)
    standardise = conv.standardise
    conv.standardise = lambda weight: torch.zeros_like(weight).index_copy(  # type: ignore[method-assign]
        1, alive, standardise(weight[:, alive])
    )
    return model


class BuiltinRmsMlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 9)
        self.norm = nn.RMSNorm(9, eps=1e-6)
        self.fc = nn.Linear(9, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.fc(self.norm(self.embed(x)))))


class ConvNorm(nn.Module):
    """conv, a norm, conv: the norm is what differs."""

    def __init__(self, width: int, norm: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3)
        self.norm = norm
        self.conv2 = nn.Conv2d(width, 5, 3)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv2(F.relu(self.norm(self.conv1(x))))).mean((2, 3)))


class PoolFormer(nn.Module):
    """One-group norms in a residual stream, and pooling as the token mixer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.norm1 = nn.GroupNorm(1, 8)
        self.norm2 = nn.GroupNorm(1, 8)
        self.fc1 = nn.Conv2d(8, 11, 1)
        self.fc2 = nn.Conv2d(11, 8, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm1(x)
        x = x + F.avg_pool2d(y, 3, 1, 1, count_include_pad=False) - y
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return self.head(F.relu(x).mean((2, 3)))


class UnitLength(nn.Module):
    """Embeddings of length one: a sum of squares across the units, zero where they are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 9)
        self.head = nn.Linear(9, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.normalize(F.relu(self.fc(x)), dim=-1))


class BatchNorm1d(nn.Module):
    """After a flatten: every channel of the convolution owns nine features of the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, bias=False)
        self.bn = nn.BatchNorm1d(54)
        self.fc = nn.Linear(54, 7)
        self.plain = nn.BatchNorm1d(7, affine=False)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.plain(self.fc(self.bn(self.conv(x).flatten(1))))))


def between(width: int, k: int, members: dict[str, int], exact: bool = True) -> Expected:
    """A group of ``ConvNorm``: the two convolutions and the norm between them."""
    return Expected(width, rows("conv1", k) | members | cols("conv2", k), exact)


LAST = Expected(5, rows("conv2") | cols("head"))

ENTRIES = (
    Entry(
        "layer_norm_mlp",
        LayerNormMlp,
        floats(4, 5),
        (
            Expected(
                10,
                rows("embed")
                | norm("norm1")
                | cols("fc1")
                | rows("fc2")
                | norm("norm2")
                | cols("head"),
                exact=False,
            ),
            Expected(14, rows("fc1") | cols("fc2")),
        ),
    ),
    Entry(
        "rms_norm_by_hand",
        RmsMlp,
        floats(5),
        (
            Expected(
                9,
                rows("embed")
                | {"norm1.weight:0": 1}
                | cols("fc1")
                | rows("fc2", bias=False)
                | {"norm2.weight:0": 1}
                | cols("head"),
                exact=False,
            ),
            Expected(13, rows("fc1", bias=False) | cols("fc2")),
        ),
        adapted_reference=rms_reference,
    ),
    Entry(
        "standardised_weights",
        StandardisedWeights,
        floats(3, 7, 7),
        (
            Expected(6, rows("stem") | cols("conv"), exact=False),
            Expected(8, rows("conv") | {"conv.gain:0": 1} | cols("head")),
        ),
        adapted_reference=standardised_reference,
    ),
    Entry(
        "rms_norm",
        BuiltinRmsMlp,
        floats(5),
        (
            Expected(9, rows("embed") | {"norm.weight:0": 1} | cols("fc"), exact=False),
            Expected(12, rows("fc") | cols("head")),
        ),
    ),
    Entry(
        "group_norm",
        lambda: ConvNorm(12, nn.GroupNorm(3, 12)),
        floats(3, 8, 8),
        (
            between(3, 4, norm("norm", 4)),
            between(4, 3, norm("norm", 3), exact=False),
            LAST,
        ),
    ),
    Entry(
        "group_norm_one",
        PoolFormer,
        floats(3, 7, 7),
        (
            Expected(
                8,
                rows("stem")
                | norm("norm1")
                | norm("norm2")
                | cols("fc1")
                | rows("fc2")
                | cols("head"),
                exact=False,
            ),
            Expected(11, rows("fc1") | cols("fc2")),
        ),
    ),
    Entry(
        "group_norm_each",
        lambda: ConvNorm(7, nn.GroupNorm(7, 7)),
        floats(3, 8, 8),
        (between(7, 1, norm("norm")), LAST),
    ),
    Entry(
        "instance_norm",
        lambda: ConvNorm(8, nn.InstanceNorm2d(8, affine=True)),
        floats(3, 8, 8),
        (between(8, 1, norm("norm")), LAST),
    ),
    Entry(
        "instance_norm_running",
        lambda: ConvNorm(8, nn.InstanceNorm2d(8, affine=True, track_running_stats=True)),
        floats(3, 8, 8),
        (between(8, 1, batchnorm("norm")), LAST),
    ),
    Entry(
        "layer_norm_image",
        lambda: ConvNorm(8, nn.LayerNorm([8, 6, 6])),
        floats(3, 8, 8),
        (between(8, 1, norm("norm"), exact=False), LAST),
    ),
    Entry(
        "unit_length",
        UnitLength,
        floats(5),
        (Expected(9, rows("fc") | cols("head")),),
    ),
    Entry(
        "batch_norm_1d",
        BatchNorm1d,
        floats(3, 5, 5),
        (
            Expected(6, rows("conv", bias=False) | batchnorm("bn", 9) | cols("fc", 9)),
            Expected(
                7,
                rows("fc") | {"plain.running_mean:0": 1, "plain.running_var:0": 1} | cols("head"),
            ),
        ),
    ),
)

"""Activations, pooling, resizing, and statistics over dimensions of which something may leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from .values import LARGEST, Fixed, Function, Option, Value, rank_in, spread

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "tanh": torch.tanh,
    "hardswish": F.hardswish,
    "leaky relu": lambda x: F.leaky_relu(x, 0.2),
    "softplus": F.softplus,
    "elu plus one": lambda x: F.elu(x) + 1,
    "one minus": lambda x: 1 - x,
    "clamp": lambda x: x.clamp(-1, 1.5),
    "cosine": torch.cos,
    "where": lambda x: torch.where(x > 0, x, 0.3 * x),
    "masked": lambda x: x.masked_fill(x < 0.1, 0.5),
    "in place": lambda x: (x * 1).relu_(),
    "half": lambda x: x / 2 - 0.3,
    "counted": lambda x: x + torch.arange(x.shape[-1], dtype=x.dtype) / 4,
}


@dataclass(frozen=True)
class Activation:
    """A point-wise function of one tensor."""

    name: str

    def build(self, values: Sequence[Value]) -> nn.Module:
        if self.name == "prelu":
            return nn.PReLU(values[0].shape[0])
        if self.name == "one prelu":
            return nn.PReLU()
        if self.name == "dropout":
            return nn.Dropout(0.5)
        return Function(ACTIVATIONS[self.name])

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        return (values[0].fixed,)


def activations(draw: st.DrawFn, x: Value) -> Activation:
    """Any of them, with learnt slopes, too."""
    return Activation(draw(st.sampled_from([*ACTIVATIONS, "prelu", "one prelu", "dropout"])))


POOLS: dict[str, dict[int, Callable[..., Tensor]]] = {
    "max": {2: F.max_pool1d, 3: F.max_pool2d},
    "mean": {2: F.avg_pool1d, 3: F.avg_pool2d},
    "adaptive mean": {2: F.adaptive_avg_pool1d, 3: F.adaptive_avg_pool2d},
    "adaptive max": {2: F.adaptive_max_pool1d, 3: F.adaptive_max_pool2d},
}


@dataclass(frozen=True)
class Pool:
    """A pooling by windows of ``size``, or to that many places."""

    kind: Literal["max", "mean", "adaptive mean", "adaptive max"]
    size: int

    def build(self, values: Sequence[Value]) -> nn.Module:
        pool = POOLS[self.kind][values[0].rank]
        return Function(lambda x: pool(x, self.size))

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        (x,) = values
        return ((x.fixed[0], *[True] * (x.rank - 1)),)


def pools(draw: st.DrawFn, x: Value) -> Pool:
    """Windows where there is room for them."""
    kinds = ["adaptive mean", "adaptive max"]
    kinds += ["max", "mean"] if min(x.shape[1:]) > 1 else []
    return Pool(draw(st.sampled_from(kinds)), draw(st.integers(1, 2)))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Upsample:
    """Twice the length, or height and width."""

    mode: Literal["nearest", "linear"]

    def build(self, values: Sequence[Value]) -> nn.Module:
        smooth = "linear" if values[0].rank == 2 else "bilinear"
        mode = "nearest" if self.mode == "nearest" else smooth
        return Function(lambda x: F.interpolate(x, scale_factor=2.0, mode=mode))

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        (x,) = values
        return ((x.fixed[0], *[True] * (x.rank - 1)),)


def upsamples(draw: st.DrawFn, x: Value) -> Upsample:
    """By repetition or by interpolation."""
    return Upsample(draw(st.sampled_from(["nearest", "linear"])))  # type: ignore[arg-type]


class Surviving(nn.Module):
    """A statistic of x * weight along ``dim``.

    alive: bool [size], set in the oracle's copy alone: which indices the statistic is about.
    """

    def __init__(self, kind: str, dim: int, size: int) -> None:
        super().__init__()
        self.kind, self.dim = kind, dim
        self.weight = nn.Parameter(torch.ones(size))
        self.alive: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = x * spread(self.weight, self.dim, x.dim())
        if self.kind == "normalise":  # a sum of squares does not mind zeros
            return F.normalize(x, dim=self.dim)
        if self.alive is not None:
            return self.over_survivors(x, spread(self.alive, self.dim, x.dim()))
        if self.kind == "mean":
            return x.mean(self.dim)
        if self.kind == "deviation":
            return x.std(self.dim, unbiased=False)
        if self.kind == "max":
            return x.amax(self.dim)
        if self.kind == "largest":
            return x.topk(2, self.dim)[0]
        if self.kind == "softmax":
            return x.softmax(self.dim)
        if self.kind == "centred":
            return x - x.mean(self.dim, keepdim=True)
        return x * torch.rsqrt(x.square().mean(self.dim, keepdim=True) + 1e-5)

    def over_survivors(self, x: Tensor, alive: Tensor) -> Tensor:
        """The same, of those that are left."""
        low = x.masked_fill(~alive, -torch.inf)
        if self.kind == "largest":
            return low.topk(2, self.dim)[0]
        if self.kind in ("max", "softmax"):
            return low.amax(self.dim) if self.kind == "max" else low.softmax(self.dim)
        count = alive.sum()
        mean = (x * alive).sum(self.dim, keepdim=True) / count
        if self.kind == "mean":
            return mean.squeeze(self.dim)
        if self.kind == "deviation":
            return (((x - mean) * alive).square().sum(self.dim) / count).sqrt()
        if self.kind == "centred":
            return x - mean
        return x * torch.rsqrt((x * alive).square().sum(self.dim, keepdim=True) / count + 1e-5)


def set_survivors(model: nn.Module, removed: Mapping[tuple[str, int], np.ndarray]) -> None:
    """Tell the statistics of a zeroed copy which of their indices have left."""
    for name, module in model.named_modules():
        gone = removed.get((f"{name}.weight", 0))
        if isinstance(module, Surviving) and gone is not None:
            module.alive = torch.ones(len(module.weight), dtype=torch.bool)
            module.alive[torch.as_tensor(gone)] = False


REDUCING = ("mean", "deviation", "max")


@dataclass(frozen=True)
class Statistic:
    """A statistic along dimension ``dim``; ``REDUCING`` take it away."""

    kind: Literal["mean", "deviation", "max", "softmax", "centred", "rms", "normalise"]
    dim: int

    def build(self, values: Sequence[Value]) -> nn.Module:
        return Surviving(self.kind, self.dim, values[0].shape[self.dim - 1])

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        left = [f for d, f in enumerate(values[0].fixed) if d != self.dim - 1]
        return (tuple(left) if self.kind in REDUCING else values[0].fixed,)


def statistics(draw: st.DrawFn, x: Value) -> Statistic:
    """Along any dimension; of a vector something is left."""
    kinds = ["softmax", "centred", "rms", "normalise"]
    kinds += REDUCING if x.rank > 1 else ()
    kind = draw(st.sampled_from(kinds))
    return Statistic(kind, draw(st.integers(1, x.rank)))  # type: ignore[arg-type]


REDUCTIONS: dict[str, Callable[[Tensor, list[int]], Tensor]] = {
    "mean": lambda x, dims: x.mean(dims),
    "sum": lambda x, dims: x.sum(dims),
    "max": lambda x, dims: x.amax(dims),
    "norm": lambda x, dims: torch.linalg.vector_norm(x, dim=dims),
    "logsumexp": lambda x, dims: x.logsumexp(dims),
    "kept mean": lambda x, dims: x - x.mean(dims, keepdim=True),
    "softmax": lambda x, dims: x.softmax(dims[0]),
    "cumsum": lambda x, dims: x.cumsum(dims[0]),
    "deviation": lambda x, dims: x.std(dims, unbiased=False),
}
KEEPING = ("kept mean", "softmax", "cumsum")


@dataclass(frozen=True)
class Reduction:
    """A sum, mean or the like over dimensions of which nothing can leave."""

    kind: str
    dims: tuple[int, ...]

    def build(self, values: Sequence[Value]) -> nn.Module:
        reduce, dims = REDUCTIONS[self.kind], list(self.dims)
        return Function(lambda x: reduce(x, dims))

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        left = [f for d, f in enumerate(values[0].fixed) if d + 1 not in self.dims]
        return (values[0].fixed if self.kind in KEEPING else tuple(left),)


def can_reduce(x: Value) -> bool:
    """Whether some dimension stays for sure and another one is left."""
    return any(x.fixed) and x.rank > 1 and not x.vocabulary


def reductions(draw: st.DrawFn, x: Value) -> Reduction:
    """Over all dimensions that stay (but one, where all do), or over one of them."""
    dims = [d + 1 for d, fixed in enumerate(x.fixed) if fixed]
    dims = dims[1:] if len(dims) == x.rank else dims
    if draw(st.booleans()):
        dims = [draw(st.sampled_from(dims))]
    return Reduction(draw(st.sampled_from([*REDUCTIONS])), tuple(dims))


def can_grow(x: Value) -> bool:
    """Whether an image twice as large is small enough."""
    return x.rank in (2, 3) and not x.vocabulary and torch.Size(x.shape).numel() * 4 <= LARGEST


POINTWISE = (
    Option(rank_in(1, 2, 3, 4), activations),
    Option(rank_in(2, 3), pools),
    Option(can_grow, upsamples),
    Option(rank_in(1, 2, 3), statistics),
    Option(can_reduce, reductions),
)

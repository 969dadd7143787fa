"""Pieces of two operands: sums, gates, concatenations, products, and layers that make them fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from .values import LARGEST, Fixed, Function, Piece, Value

MEETINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": lambda a, b: a + b,
    "product": lambda a, b: a * b,
    "gate": lambda a, b: a * b.sigmoid(),
    "difference": lambda a, b: a - 0.5 * b,
    "larger": torch.maximum,
    "blend": lambda a, b: torch.lerp(a, b.tanh(), 0.3),
    "highway": lambda a, b: a * b.sigmoid() + (1 - b.sigmoid()) * b,
    "quotient": lambda a, b: a / (1 + b.abs()),
    "chosen": lambda a, b: torch.where(b > 0, a, b),
    "stack": lambda a, b: torch.stack([a, b], dim=1).mean(1),
    "stack of images": lambda a, b: torch.stack([a, b], dim=-1).amax(-1),
}


def tied(a: Value, b: Value) -> Fixed:
    """Dimensions that meet: what holds one holds both."""
    return tuple(f or g for f, g in zip(a.fixed, b.fixed, strict=True))


@dataclass(frozen=True)
class Meeting:
    """A point-wise operation of two tensors of one shape."""

    name: str

    def build(self, values: Sequence[Value]) -> nn.Module:
        return Function(MEETINGS[self.name])

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        return (tied(*values),)


@dataclass(frozen=True)
class Concatenation:
    """Of two tensors that differ in dimension ``dim`` at most."""

    dim: int

    def build(self, values: Sequence[Value]) -> nn.Module:
        return Function(lambda *operands: torch.cat(operands, self.dim))

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        (a, b), d = values, self.dim - 1
        meet = tied(a, b)
        return ((*meet[:d], a.fixed[d] and b.fixed[d], *meet[d + 1 :]),)


class Shortcut(nn.Module):
    """The second operand brought to the width of the first by a layer, and added."""

    def __init__(self, wide: int, width: int, dim: int, gated: bool) -> None:
        super().__init__()
        self.dim, self.gated = dim, gated
        self.project = nn.Linear(wide, width)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        b = self.project(b.movedim(self.dim, -1)).movedim(-1, self.dim)
        return a * b if self.gated else a + b


@dataclass(frozen=True)
class Projected:
    """A sum or product of two tensors that differ in dimension ``dim``, by way of a layer."""

    dim: int
    gated: bool

    def build(self, values: Sequence[Value]) -> nn.Module:
        a, b = values
        return Shortcut(b.shape[self.dim - 1], a.shape[self.dim - 1], self.dim, self.gated)

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        (a, b), d = values, self.dim - 1
        meet = tied(a, b)
        return ((*meet[:d], a.fixed[d], *meet[d + 1 :]),)


class Modulation(nn.Module):
    """A vector made of the second operand scales and shifts dimension ``dim`` of the first."""

    def __init__(self, inside: int, width: int, dim: int, mean: bool) -> None:
        super().__init__()
        self.dim, self.mean = dim, mean
        self.layer = nn.Linear(inside, 2 * width)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        vector = b.flatten(1, -2).mean(1) if self.mean else b.flatten(1)
        scale, shift = self.layer(vector).chunk(2, dim=-1)
        shape = [a.shape[0]] + [-1 if d == self.dim else 1 for d in range(1, a.dim())]
        return a * (1 + scale.reshape(shape)) + shift.reshape(shape)


@dataclass(frozen=True)
class Modulated:
    """Conditioning as in FiLM, by a mean over what stays of the second, or by all of it."""

    dim: int
    mean: bool

    def build(self, values: Sequence[Value]) -> nn.Module:
        a, b = values
        inside = b.shape[-1]
        if not self.mean:
            for n in b.shape[:-1]:
                inside *= n
        return Modulation(inside, a.shape[self.dim - 1], self.dim, self.mean)

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        return (values[0].fixed,)


class Matched(nn.Module):
    """(a * weight) @ b.T over the last dimensions; the weight's zeros make it a sum."""

    def __init__(self, width: int, applied: bool) -> None:
        super().__init__()
        self.applied = applied
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        scores = (a * self.weight) @ b.transpose(-1, -2)
        return scores.tanh() @ (b * self.weight) if self.applied else scores


@dataclass(frozen=True)
class Matching:
    """Products of the rows of two matrices; ``applied``: rows of the second mixed by them."""

    applied: bool

    def build(self, values: Sequence[Value]) -> nn.Module:
        return Matched(values[0].shape[-1], self.applied)

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        a, b = values
        return ((a.fixed[0], a.fixed[1] and b.fixed[1] if self.applied else b.fixed[0]),)


@dataclass(frozen=True)
class Broadcast:
    """A vector along dimension ``dim`` of a larger tensor, added or as a gate."""

    dim: int
    gated: bool

    def build(self, values: Sequence[Value]) -> nn.Module:
        rank = values[0].rank

        def meet(a: Tensor, b: Tensor) -> Tensor:
            for d in range(1, rank + 1):
                b = b if d == self.dim else b.unsqueeze(d)
            return a * b.sigmoid() if self.gated else a + b

        return Function(meet)

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        (a, b), d = values, self.dim - 1
        return ((*a.fixed[:d], a.fixed[d] or b.fixed[0], *a.fixed[d + 1 :]),)


class Mixed(nn.Module):
    """A mean of two tensors with learnt weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(2))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        weights = self.weights.softmax(0)
        return weights[0] * a + weights[1] * b


@dataclass(frozen=True)
class Mixture:
    """A mean of two tensors of one shape, with learnt weights."""

    def build(self, values: Sequence[Value]) -> nn.Module:
        return Mixed()

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        return (tied(*values),)


@dataclass(frozen=True)
class Outer:
    """The outer product of two vectors; ``bilinear``: by a layer instead, to this width."""

    bilinear: int

    def build(self, values: Sequence[Value]) -> nn.Module:
        a, b = values
        if self.bilinear:
            return nn.Bilinear(a.shape[0], b.shape[0], self.bilinear)
        return Function(lambda x, y: x.unsqueeze(2) * y.unsqueeze(1))

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        a, b = values
        return ((False,) if self.bilinear else (*a.fixed, *b.fixed),)


def joins(draw: st.DrawFn, a: Value, b: Value) -> Piece | None:
    """Some way for ``b`` to meet ``a``, None where there is none."""
    options: list[Piece] = []
    if a.shape == b.shape:
        options += [Meeting(draw(st.sampled_from([*MEETINGS])))] * 3 + [Mixture()]
    if a.rank == b.rank == 1:
        options.append(Outer(draw(st.sampled_from([0, 0, 3, 4]))))
    if a.rank == b.rank:
        differ = [d + 1 for d in range(a.rank) if a.shape[d] != b.shape[d]]
        if len(differ) < 2 and a.rank:
            dim = differ[0] if differ else draw(st.integers(1, a.rank))
            options.append(Projected(dim, draw(st.booleans())))
            sizes = [
                n + m if d + 1 == dim else n
                for d, (n, m) in enumerate(zip(a.shape, b.shape, strict=True))
            ]
            if torch.Size(sizes).numel() <= LARGEST:
                options += [Concatenation(dim)] * 2
    if a.rank == b.rank == 2 and a.shape[-1] == b.shape[-1]:
        # the second product runs over the rows of b
        options.append(Matching(draw(st.booleans()) and b.fixed[0]))
    fitting = [d + 1 for d, n in enumerate(a.shape) if (n,) == b.shape]
    if a.rank > 1 and fitting:
        options.append(Broadcast(draw(st.sampled_from(fitting)), draw(st.booleans())))
    if not options and torch.Size(b.shape).numel() <= 100:
        dim = draw(st.integers(1, a.rank))
        mean = b.rank > 1 and all(b.fixed[:-1])
        options.append(Modulated(dim, mean))
    return draw(st.sampled_from(options)) if options else None

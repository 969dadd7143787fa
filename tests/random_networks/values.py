"""What the drawing of a net knows of its tensors, and what a piece of a net is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

Fixed = tuple[bool, ...]

LARGEST = 500  # elements of any tensor of a net, for one sample
WIDTHS = st.integers(2, 8)


@dataclass(frozen=True)
class Value:
    """A tensor of a net as its drawing sees it.

    shape:      sizes without the batch.
    fixed:      per dimension, True where surely nothing of it can leave. Statistics over other
                dimensions are drawn only where the oracle can take them over the survivors.
    vocabulary: for token numbers how many there are, 0 for floats.
    """

    shape: tuple[int, ...]
    fixed: Fixed
    vocabulary: int = 0

    @property
    def rank(self) -> int:
        return len(self.shape)

    def example(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """A random tensor of this kind, in float64."""
        size = (batch, *self.shape)
        if self.vocabulary:
            return torch.randint(0, self.vocabulary, size, generator=generator)
        return torch.randn(size, generator=generator, dtype=torch.float64)


class Piece(Protocol):
    """The description of a module: a frozen dataclass of plain values."""

    def build(self, values: Sequence[Value]) -> nn.Module:
        """The module for operands of this kind."""
        ...

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        """``Value.fixed`` of every result."""
        ...


@dataclass(frozen=True)
class Option:
    """A kind of piece for one operand: which values it can take, and how one is drawn."""

    applies: Callable[[Value], bool]
    pieces: Callable[[st.DrawFn, Value], Piece]


class Function(nn.Module):
    """A function of tensors as a module without tensors of its own."""

    def __init__(self, function: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *operands: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.function(*operands)


def spread(vector: Tensor, dim: int, rank: int) -> Tensor:
    """The vector along dimension ``dim`` of ``rank`` dimensions, for broadcasting."""
    return vector.view([-1 if d == dim else 1 for d in range(rank)])


def divisors(number: int, least: int = 1) -> list[int]:
    """All divisors from ``least`` on, 1 first."""
    return [n for n in range(least, number + 1) if number % n == 0]


def rank_in(*ranks: int) -> Callable[[Value], bool]:
    """Floats with one of these numbers of dimensions, the batch not counted."""
    return lambda value: value.rank in ranks and not value.vocabulary

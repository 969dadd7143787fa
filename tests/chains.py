"""Random chains of operations that only move data, and a model that runs one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

LARGEST = 160  # elements of any tensor of a chain


def sliced(x: Tensor, dim: int, start: int, stop: int, step: int) -> Tensor:
    """x[..., start:stop:step]."""
    return x[(slice(None),) * dim + (slice(start, stop, step),)]


def rearranged(pieces: tuple[Tensor, ...], order: tuple[int, ...], dim: int) -> Tensor:
    """Some pieces of a tensor in another order."""
    return torch.cat([pieces[i] for i in order], dim)


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "permute": lambda x, dims: x.permute(dims),
    "transpose": lambda x, a, b: x.transpose(a, b),
    "movedim": lambda x, a, b: x.movedim(a, b),
    "reshape": lambda x, shape: x.reshape(shape),
    "view": lambda x, shape: x.contiguous().view(shape),
    "flatten": lambda x, first, last: x.flatten(first, last),
    "unflatten": lambda x, dim, sizes: x.unflatten(dim, sizes),
    "slice": sliced,
    "select": lambda x, dim, index: x.select(dim, index),
    "narrow": lambda x, dim, start, length: x.narrow(dim, start, length),
    "pick": lambda x, dim, index: x.index_select(dim, torch.tensor(index)),
    "mirror": lambda x, dim: torch.cat([x, x.flip(dim)], dim),
    "chunk": lambda x, dim, n, order: rearranged(x.chunk(n, dim), order, dim),
    "split": lambda x, dim, sizes, order: rearranged(x.split(sizes, dim), order, dim),
    "stack": lambda x, dim: torch.stack([x, x], dim),
    "flip": lambda x, dim: x.flip(dim),
    "roll": lambda x, shift, dim: x.roll(shift, dim),
    "unsqueeze": lambda x, dim: x.unsqueeze(dim),
    "squeeze": lambda x, dim: x.squeeze(dim),
    "expand": lambda x, sizes: x.expand(sizes),
    "repeat": lambda x, times: x.repeat(times),
    "repeat_interleave": lambda x, times, dim: x.repeat_interleave(times, dim),
    "pixel_shuffle": lambda x, factor: nn.functional.pixel_shuffle(x, factor),
    "pixel_unshuffle": lambda x, factor: nn.functional.pixel_unshuffle(x, factor),
    "channel_shuffle": lambda x, groups: nn.functional.channel_shuffle(x, groups),
}  # fmt: skip

# Chains of these leave every index whole: nothing is cut by a reshape or used by itself.
WHOLE = ("permute", "transpose", "movedim", "slice", "narrow", "pick", "mirror", "chunk", "split",
         "flip", "roll", "unsqueeze", "squeeze", "stack", "expand", "repeat", "repeat_interleave",
         "flatten", "unflatten")  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One operation of a chain with its literal arguments."""

    name: str
    arguments: tuple[Any, ...]

    def __call__(self, x: Tensor) -> Tensor:
        return OPERATIONS[self.name](x, *self.arguments)


@st.composite
def steps(draw: st.DrawFn, shape: tuple[int, ...], names: tuple[str, ...]) -> Step:
    """An operation that a tensor of this shape can take."""
    rank = len(shape)
    dim = draw(st.integers(0, rank - 1))
    other = draw(st.integers(0, rank - 1))
    size = shape[dim]
    start = draw(st.integers(0, size - 1))
    signed = draw(st.sampled_from([start, start - size]))  # literals may count from the end
    stop = draw(st.integers(start + 1, size))
    until = draw(st.sampled_from([stop, stop - size])) if stop < size else stop
    divisors = [n for n in range(2, size) if size % n == 0]
    options: dict[str, Callable[[], tuple[Any, ...]]] = {
        "permute": lambda: (tuple(draw(st.permutations(range(rank)))),),
        "transpose": lambda: (dim, other),
        "movedim": lambda: (dim, other),
        "slice": lambda: (dim, signed, until, draw(st.sampled_from([1, 1, 2, 3]))),
        "select": lambda: (dim, signed),
        "narrow": lambda: (dim, signed, stop - start),
        "pick": lambda: (dim, draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=5))),
        "mirror": lambda: (dim,),
        "stack": lambda: (dim,),
        "flip": lambda: (dim,),
        "roll": lambda: (draw(st.integers(-size, size)), dim),
        "unsqueeze": lambda: (draw(st.integers(0, rank)),),
        "repeat": lambda: (tuple(draw(st.integers(1, 2)) for _ in range(rank + 1)),),
        "repeat_interleave": lambda: (2, dim),
        "reshape": lambda: (draw(factorisations(math.prod(shape))),),
        "view": lambda: (draw(factorisations(math.prod(shape))),),
        "flatten": lambda: (min(dim, other), max(dim, other)),
    }
    if 1 in shape:
        options["squeeze"] = lambda: (shape.index(1),)
        options["expand"] = lambda: (tuple(3 if n == 1 else n for n in shape),)
    if divisors:
        inner = draw(st.sampled_from(divisors))
        options["unflatten"] = lambda: (dim, (size // inner, inner))
    if size > 1:
        cut = draw(st.integers(1, size - 1))
        pieces = len(torch.empty(size).chunk(2))
        options["split"] = lambda: (dim, (cut, size - cut), draw(orders(2)))
        options["chunk"] = lambda: (dim, 2, draw(orders(pieces)))
    if rank == 3:
        if shape[0] % 4 == 0:
            options["pixel_shuffle"] = lambda: (2,)
        if shape[1] % 2 == 0 and shape[2] % 2 == 0:
            options["pixel_unshuffle"] = lambda: (2,)
        if shape[1] % 2 == 0:
            options["channel_shuffle"] = lambda: (2,)
    name = draw(st.sampled_from([name for name in options if name in names]))
    return Step(name, options[name]())


def orders(count: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Numbers below ``count`` in some order, some perhaps missing."""
    return st.lists(st.integers(0, count - 1), min_size=1, unique=True).map(tuple)


@st.composite
def factorisations(draw: st.DrawFn, number: int) -> tuple[int, ...]:
    """Sizes of a few dimensions with the given product."""
    sizes = [1, 1, 1][: draw(st.integers(1, 3))]
    for factor in prime_factors(number):
        sizes[draw(st.integers(0, len(sizes) - 1))] *= factor
    return tuple(sizes)


def prime_factors(number: int) -> Iterator[int]:
    divisor = 2
    while number > 1:
        while number % divisor == 0:
            yield divisor
            number //= divisor
        divisor += 1


@dataclass(frozen=True)
class Chain:
    """Shape of the parameter and what happens to it."""

    shape: tuple[int, ...]
    steps: tuple[Step, ...]

    def __call__(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


@st.composite
def chains(draw: st.DrawFn, names: tuple[str, ...] = tuple(OPERATIONS)) -> Chain:
    """Up to five operations, of tensors that stay small."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=2, max_size=3)))
    made: list[Step] = []
    x = torch.zeros(shape)
    for _ in range(draw(st.integers(1, 5))):
        step = draw(steps(tuple(x.shape), names))
        y = step(x)
        if y.dim() == 0 or y.numel() > LARGEST:
            break
        made.append(step)
        x = y
    return Chain(shape, tuple(made))


class Moving(nn.Module):
    """Adds one number to its input that every element of the chain's result has a hand in."""

    def __init__(self, chain: Chain) -> None:
        super().__init__()
        self.chain = chain
        count = math.prod(chain.shape)
        self.labels = nn.Parameter(torch.arange(count, dtype=torch.float64).reshape(chain.shape))
        generator = torch.Generator().manual_seed(0)
        size = chain(self.labels.detach()).shape
        self.scale = nn.Parameter(torch.randn(size, generator=generator, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.chain(self.labels) * self.scale).sum()

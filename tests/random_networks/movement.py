"""Pieces that only move data: permutations, reshapes, slices, copies, shuffles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from chains import OPERATIONS, sliced

from .pointwise import Surviving
from .values import LARGEST, Fixed, Function, Option, Value, divisors, rank_in


def glu_by_hand(x: Tensor, dim: int, sigmoid: bool) -> Tensor:
    """One half gates the other."""
    first, second = x.chunk(2, dim)
    return first * second.sigmoid() if sigmoid else F.gelu(first) * second


def swapped_pairs(x: Tensor, dim: int) -> Tensor:
    """(-x2, x1) for neighbours, as rotary positions have it."""
    even, odd = x.unflatten(dim, (-1, 2)).unbind(dim + 1)
    return torch.stack([-odd, even], dim + 1).flatten(dim, dim + 1)


def written(x: Tensor, dim: int, start: int) -> Tensor:
    """Written to in place, in part, through a view."""
    y = x.clone()
    y.narrow(dim, start, 2).add_(0.5)
    return y


def halved(x: Tensor, dim: int, start: int) -> Tensor:
    """A part rectified in place, which leaves zeros alone."""
    y = x * 1
    y.narrow(dim, start, 2).relu_()
    return y


def every_second(x: Tensor, dim: int) -> Tensor:
    """Every second index changed in place."""
    y = x * 1
    sliced(y, dim, 0, x.shape[dim], 2).sigmoid_()
    return y


def woven(x: Tensor, dim: int) -> Tensor:
    """Two copies written into a tensor of zeros, index by index in turn."""
    size = 2 * x.shape[dim]
    y = x.new_zeros(*[n * 2 if d == dim else n for d, n in enumerate(x.shape)])
    sliced(y, dim, 0, size, 2).copy_(x)
    sliced(y, dim, 1, size, 2).copy_(x.flip(dim))
    return y


def assembled(x: Tensor, dim: int) -> Tensor:
    """Two copies written into a tensor of zeros."""
    size = x.shape[dim]
    y = x.new_zeros(*[n * 2 if d == dim else n for d, n in enumerate(x.shape)])
    y.narrow(dim, 0, size).copy_(x)
    y.narrow(dim, size, size).copy_(x.flip(dim))
    return y


MOVES: dict[str, Callable[..., Any]] = OPERATIONS | {
    "glu": F.glu,
    "gate": glu_by_hand,
    "swapped pairs": swapped_pairs,
    "pieces": lambda x, sizes, dim: tuple(x.split(sizes, dim)),
    "chunks": lambda x, count, dim: tuple(x.chunk(count, dim)),
    "widened": lambda x, low, high: F.pad(x, [*[0] * (2 * x.dim() - 4), low, high]),
    "shifted": lambda x, dim, size: F.pad(
        x.narrow(dim, 0, size - 1), [*[0] * (2 * (x.dim() - 1 - dim)), 1, 0]
    ),
    "written": written,
    "halved": halved,
    "assembled": assembled,
    "woven": woven,
    "every second": every_second,
    "sorted": lambda x, dim: x.sort(dim)[0],
    "largest": lambda x, dim: x.topk(2, dim)[0],
    "windows": lambda x, kernel: F.unfold(x, kernel, stride=kernel - 1),
    "residual of neighbours": lambda x, dim: x + x.roll(1, dim),
    "copies": lambda x, count: x.unsqueeze(1).expand(-1, count, *[-1] * (x.dim() - 1)),
    "copied": lambda x, count: x.unsqueeze(1).repeat(1, count, *[1] * (x.dim() - 1)),
    "split heads": lambda x, heads: x.unflatten(-1, (heads, -1)).transpose(1, -2),
    "merge heads": lambda x: x.transpose(1, -2).flatten(-2),
}


@dataclass(frozen=True)
class Move:
    """An operation on data alone; dimensions are counted with the batch."""

    name: str
    arguments: tuple[Any, ...]

    def __call__(self, x: Tensor) -> Any:
        return MOVES[self.name](x, *self.arguments)

    def build(self, values: Sequence[Value]) -> nn.Module:
        if self.name == "largest":  # a zero may be larger than all that is left
            (dim,) = self.arguments
            return Surviving("largest", dim, values[0].shape[dim - 1])
        return Function(self)

    def fixed(self, values: Sequence[Value]) -> tuple[Fixed, ...]:
        """By labels: what varies with a dimension that may leave may leave itself."""
        (x,) = values
        free: list[set[int]] = []
        for d in (d for d, fixed in enumerate(x.fixed) if not fixed):
            label = torch.arange(1.0, x.shape[d] + 1).view(
                [-1 if e == d else 1 for e in range(x.rank)]
            )
            moved = self(label.expand(2, *x.shape).contiguous())
            results = moved if isinstance(moved, tuple) else (moved,)
            free = free or [set() for _ in results]
            for found, result in zip(free, results, strict=True):
                found |= {e for e in range(1, result.dim()) if varies(result, e)}
        moved = self(torch.zeros(2, *x.shape))
        results = moved if isinstance(moved, tuple) else (moved,)
        free = free or [set() for _ in results]
        return tuple(
            tuple(d not in found for d in range(1, result.dim()))
            for found, result in zip(free, results, strict=True)
        )


def varies(x: Tensor, dim: int) -> bool:
    """Whether the values along a dimension differ anywhere."""
    return bool((x != x.narrow(dim, 0, 1)).any())


@st.composite
def factorisations(draw: st.DrawFn, number: int, parts: int) -> tuple[int, ...]:
    """Sizes of some dimensions with the given product."""
    sizes = [number]
    for _ in range(parts - 1):
        inner = draw(st.sampled_from(divisors(sizes[0])))
        sizes = [sizes[0] // inner, inner, *sizes[1:]]
    return tuple(sizes)


def moves(draw: st.DrawFn, x: Value) -> Move:
    """Any move that the shape allows."""
    dims = st.integers(1, x.rank)
    dim, other = draw(dims), draw(dims)
    size = x.shape[dim - 1]
    everything = 1
    for n in x.shape:
        everything *= n
    options: dict[str, Callable[[], tuple[Any, ...]]] = {
        "flip": lambda: (dim,),
        "roll": lambda: (draw(st.integers(-size, size)), dim),
        "transpose": lambda: (dim, other),
        "permute": lambda: ((0, *draw(st.permutations(range(1, x.rank + 1)))),),
        "flatten": lambda: (min(dim, other), max(dim, other)),
        "pick": lambda: (dim, draw(st.lists(st.integers(0, size - 1), min_size=2, max_size=6))),
    }
    if x.rank < 4:
        options["unflatten"] = lambda: (dim, draw(factorisations(size, 2)))
        options["reshape"] = lambda: (
            (-1, *draw(factorisations(everything, draw(st.integers(1, 3))))),
        )
    if x.rank < 3:
        options["copies"] = options["copied"] = lambda: (draw(st.integers(2, 3)),)
    if everything * 3 <= LARGEST:
        options["mirror"] = options["assembled"] = options["woven"] = lambda: (dim,)
        options["repeat_interleave"] = lambda: (2, dim)
        options["repeat"] = lambda: (tuple(1 + (d == dim) for d in range(x.rank + 1)),)
    if size > 2:
        start = draw(st.integers(0, size - 2))
        stop = draw(st.integers(start + 2, size))
        step = draw(st.sampled_from([1, 1, 2])) if stop - start > 2 else 1
        options["slice"] = lambda: (dim, start, stop if stop < size else None, step)
        options["narrow"] = lambda: (dim, start, stop - start)
        options["residual of neighbours"] = options["every second"] = lambda: (dim,)
        options["written"] = options["halved"] = lambda: (dim, start)
        options["sorted" if draw(st.booleans()) else "largest"] = lambda: (dim,)
        options["shifted"] = lambda: (dim, size)
        options["split"] = lambda: (
            dim,
            (start + 1, size - start - 1),
            draw(st.permutations((0, 1))),
        )
        options["pieces"] = lambda: ((start + 1, size - start - 1), dim)
        options["chunks"] = lambda: (draw(st.integers(2, min(3, size // 2))), dim)
        options["select"] = lambda: (dim, start)
        if x.rank == 1:
            del options["select"]
        if size < 4:
            del options["chunks"]
    if size % 2 == 0:
        options["glu"] = lambda: (dim,)
        options["gate"] = lambda: (dim, draw(st.booleans()))
        options["swapped pairs"] = lambda: (dim,)
    if x.rank in (2, 3):
        options["widened"] = lambda: (draw(st.integers(0, 1)), draw(st.integers(1, 2)))
    if x.rank == 3:
        options["merge heads"] = lambda: ()
        options["windows"] = lambda: (2,)
        if x.shape[0] % 4 == 0:
            options["pixel_shuffle"] = lambda: (2,)
        if x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0:
            options["pixel_unshuffle"] = lambda: (2,)
        shuffles = divisors(x.shape[0], 2)
        if shuffles:
            options["channel_shuffle"] = lambda: (draw(st.sampled_from(shuffles)),)
    heads = divisors(x.shape[-1], 2)[:-1]
    if x.rank in (2, 3) and heads:
        options["split heads"] = lambda: (draw(st.sampled_from(heads)),)
    name = draw(st.sampled_from(sorted(options)))
    return Move(name, options[name]())


MOVEMENT = (Option(rank_in(1, 2, 3, 4), moves),) * 4  # as likely as four other kinds

"""The algebra of what leaves together. Numpy and scipy only; nothing here knows torch.

Every tensor carries one integer vector per dimension: ``ids[d][i]`` names what happens to
index ``i`` of dimension ``d``. Three sentences are the whole theory:

    An id names one index of one dimension; id 0 never leaves.
    same(a, b): index i of a leaves if and only if index i of b leaves.
    product(flat, (f1, ..., fk)): flat[i1, ..., ik] leaves iff f1[i1] or ... or fk[ik] leaves.

The sign of an id carries one more fact about the *value* at that index: a positive id is zero
there once the unit's slices are zeroed, a negative id is not (``sigmoid(0)`` is one half).
``same`` and ``product`` look at the absolute value only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ids = np.ndarray  # int64 [size of the dimension]
Sparse = Any  # a scipy.sparse.csr_array; scipy's stubs do not follow one through a product


class Pin(NamedTuple):
    """Ids that may not leave; ``origin`` is the tracer's number of the operation."""

    ids: Ids
    origin: int
    reason: str


class Product(NamedTuple):
    """flat[i1, ..., ik] leaves iff some factor's index leaves."""

    flat: Ids
    factors: tuple[Ids, ...]
    origin: int

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(factor) for factor in self.factors)


@dataclass
class Axes:
    """Ids, ``same`` and ``product`` as they are stated while a graph is read."""

    count: int = 1
    origin: int = -1  # number of the operation that speaks; kept as provenance of every fact
    edges: list[tuple[Ids, Ids, int]] = field(default_factory=list)
    pins: list[Pin] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    weak: list[Ids] = field(default_factory=list)

    def fresh(self, size: int, weak: bool = False, lone: bool = False) -> Ids:
        """New ids [size]; a dimension of size 1 never leaves and gets id 0.

        weak: the index only repeats a value (expand); it leaves only along with an index
        that does not. lone: a part of a dimension, which may have a single index.
        """
        if size < 1 or (size == 1 and not lone):
            return np.zeros(size, np.int64)
        ids = np.arange(self.count, self.count + size, dtype=np.int64)
        self.count += size
        if weak:
            self.weak.append(ids)
        return ids

    def same(self, a: Ids, b: Ids) -> None:
        """State that a[i] leaves if and only if b[i] leaves; both [n]."""
        if len(a) != len(b):
            raise ValueError(f"same() wants equal lengths, got {len(a)} and {len(b)}")
        a, b = np.abs(a), np.abs(b)
        held = (a == 0) != (b == 0)
        if held.any():
            reason = "it meets an input, an output or another index that cannot leave"
            self.pins.append(Pin(np.maximum(a, b)[held], self.origin, reason))
        differ = (a != b) & ~held
        if differ.any():
            self.edges.append((a[differ], b[differ], self.origin))

    def pin(self, ids: Ids, reason: str) -> None:
        """State that none of ``ids`` leaves."""
        ids = np.abs(ids)
        ids = ids[ids != 0]
        if ids.size:
            self.pins.append(Pin(ids, self.origin, reason))

    def split(self, flat: Ids, sizes: Sequence[int]) -> list[Ids]:
        """Ids of the factors when ``flat`` is viewed as a grid of ``sizes``."""
        if not flat.any():
            return [np.zeros(size, np.int64) for size in sizes]
        grid = flat.reshape(tuple(sizes))
        for axis, size in enumerate(sizes):
            line = grid[tuple(slice(None) if d == axis else 0 for d in range(len(sizes)))]
            shape = [1] * len(sizes)
            shape[axis] = size
            if (grid == line.reshape(shape)).all():  # the grid varies along one axis only
                return [
                    line.copy() if d == axis else np.zeros(n, np.int64) for d, n in enumerate(sizes)
                ]
        moving = [axis for axis, size in enumerate(sizes) if size > 1]
        sign = -1 if (flat < 0).any() else 1
        factors = [self.fresh(size) for size in sizes]
        self.products.append(
            Product(np.abs(flat), tuple(factors[axis] for axis in moving), self.origin)
        )
        return [sign * factor for factor in factors]

    def merge(self, factors: Sequence[Ids]) -> Ids:
        """Ids of the one dimension that a grid of ``factors`` is flattened to (row-major)."""
        sizes = tuple(len(factor) for factor in factors)
        moving = [axis for axis, factor in enumerate(factors) if factor.any()]
        if not moving:
            return np.zeros(int(np.prod(sizes)), np.int64)
        if len(moving) == 1:
            axis = moving[0]
            shape = [1] * len(sizes)
            shape[axis] = sizes[axis]
            return np.broadcast_to(factors[axis].reshape(shape), sizes).reshape(-1).copy()
        sign = -1 if any((factor < 0).any() for factor in factors) else 1
        grid_sizes = [sizes[axis] for axis in moving]
        grid = self.fresh(int(np.prod(grid_sizes)))
        self.products.append(
            Product(grid, tuple(np.abs(factors[axis]) for axis in moving), self.origin)
        )
        shape = [sizes[axis] if axis in moving else 1 for axis in range(len(sizes))]
        return sign * np.broadcast_to(grid.reshape(shape), sizes).reshape(-1).copy()


def signed(ids: Ids, zero: np.ndarray) -> Ids:
    """The ids, positive where values are zero once their units' slices are: ``zero``, bool [n]."""
    return np.where(zero, np.abs(ids), -np.abs(ids))


def labels_of(count: int, pairs: Sequence[tuple[Ids, Ids]]) -> np.ndarray:
    """Connected component of every id [count] under the given pairs of equal-length vectors."""
    if not pairs:
        return np.arange(count)
    left = np.concatenate([a for a, _ in pairs])
    right = np.concatenate([b for _, b in pairs])
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    return connected_components(graph, directed=False)[1]

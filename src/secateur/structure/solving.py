"""Solve the facts of an ``Axes``: classes of ids, and the units that can leave.

First a fixpoint: connected components over ``same``, then every product is looked at as a grid
of classes; a factor whose slab touches what is pinned is pinned, a factor along which the grid
does not vary only repeats and is pinned, a product with one moving factor becomes ``same``.
Then closures: a class leaves -> the slabs of its factors leave -> factors whose whole slab is
gone leave. A closure is a unit when every product it touches lost exactly whole slabs.
Sums of dimension sizes, never of activations; all steps are vectorised over the units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array

from secateur.structure.axes import Axes, Pin, Product, labels_of


@dataclass(frozen=True, eq=False)
class Solution:
    """Classes and units.

    labels:   int [ids]; the class of every id.
    frozen:   the class of id 0.
    units:    bool sparse [units, classes]; what leaves with each unit.
    pins:     every pin, those that products implied included.
    products: the products that stayed live.
    refused:  class -> origin of the product that forbids it to leave by itself.
    """

    labels: np.ndarray
    frozen: int
    units: csr_array
    pins: tuple[Pin, ...]
    products: tuple[Product, ...]
    refused: dict[int, int]
    pairs: tuple[tuple[np.ndarray, np.ndarray, int], ...]


def solve(axes: Axes) -> Solution:
    """Classes of ids and the closures of all classes that can leave."""
    pairs = list(axes.edges)
    pins = list(axes.pins)
    products = list(axes.products)
    weak = np.zeros(axes.count, bool)
    for ids in axes.weak:
        weak[ids] = True
    while True:
        labels = labels_of(
            axes.count,
            [(a, b) for a, b, _ in pairs] + [(pin.ids, np.zeros_like(pin.ids)) for pin in pins],
        )
        new_pairs, new_pins, products = _resolve(labels, products)
        if not new_pairs and not new_pins:
            new_pairs = _unify_equal_slabs(labels, products)
        if not new_pairs and not new_pins:
            new_pins = _pin_repetitions(labels, weak, axes.origin)
        if not new_pairs and not new_pins:
            break
        pairs += new_pairs
        pins += new_pins
    frozen = int(labels[0])
    units, refused = _closures(labels, frozen, products)
    return Solution(labels, frozen, units, tuple(pins), tuple(products), refused, tuple(pairs))


def _resolve(
    labels: np.ndarray, products: list[Product]
) -> tuple[list[tuple[np.ndarray, np.ndarray, int]], list[Pin], list[Product]]:
    """One pass over the live products: implied facts, and the products still live."""
    frozen = labels[0]
    pairs: list[tuple[np.ndarray, np.ndarray, int]] = []
    pins: list[Pin] = []
    live: list[Product] = []
    for product in products:
        grid = labels[product.flat].reshape(product.sizes)
        moving = []
        implied = len(pins)
        for axis, factor in enumerate(product.factors):
            classes = labels[factor]
            if (classes == frozen).all():
                continue
            slabs = np.moveaxis(grid, axis, 0).reshape(len(factor), -1)
            held = (slabs == frozen).any(1) & (classes != frozen)
            if held.any():
                reason = "part of what would leave with it is held"
                pins.append(Pin(factor[held], product.origin, reason))
            elif (slabs == slabs[:1]).all():
                pins.append(Pin(factor, product.origin, "the dimension only repeats"))
            else:
                moving.append(axis)
        if len(pins) > implied:
            live.append(product)  # to be looked at again with the new labels
        elif len(moving) == 1:
            axis = moving[0]
            shape = [1] * grid.ndim
            shape[axis] = -1
            spread = np.broadcast_to(product.factors[axis].reshape(shape), grid.shape).reshape(-1)
            pairs.append((product.flat, spread, product.origin))
        elif not moving:
            if (grid != frozen).any():
                pins.append(Pin(product.flat, product.origin, "rows and columns are held"))
        else:
            live.append(product)
    return pairs, pins, live


def _unify_equal_slabs(
    labels: np.ndarray, products: list[Product]
) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Factor indices that own the same set of flat classes leave together."""
    owner: dict[bytes, int] = {}
    pairs = []
    for product in products:
        grid = labels[product.flat].reshape(product.sizes)
        for axis, factor in enumerate(product.factors):
            slabs = np.sort(np.moveaxis(grid, axis, 0).reshape(len(factor), -1), axis=1)
            left, right = [], []
            for slab, index in zip(slabs, factor, strict=True):
                first = owner.setdefault(slab.tobytes(), int(index))
                if labels[first] != labels[index]:
                    left.append(first)
                    right.append(int(index))
            if left:
                pairs.append((np.array(left), np.array(right), product.origin))
    return pairs


def _pin_repetitions(labels: np.ndarray, weak: np.ndarray, origin: int) -> list[Pin]:
    """Classes made of nothing but repetitions do not leave by themselves."""
    if not weak.any():
        return []
    strong = np.zeros(labels.max() + 1, bool)
    strong[labels[~weak]] = True
    only = weak & ~strong[labels]
    return [Pin(np.flatnonzero(only), origin, "the dimension only repeats")] if only.any() else []


def _closures(
    labels: np.ndarray, frozen: int, products: list[Product]
) -> tuple[csr_array, dict[int, int]]:
    """Closures of all generating classes: bool [units, classes], and the refused classes."""
    classes = int(labels.max()) + 1
    generates = np.ones(classes, bool)
    generates[frozen] = False
    for product in products:
        generates[labels[product.flat]] = False
    generators = np.flatnonzero(generates)
    ones = np.ones(len(generators), np.int32)
    closure = csr_array(
        (ones, (np.arange(len(generators)), generators)), shape=(len(generators), classes)
    )
    if not products:
        return closure.astype(bool), {}

    # slab[c, s] = 1 where class c lies in slab s; a slab belongs to one index of one factor.
    rows, columns, owners = [], [], []
    for product in products:
        grid = labels[product.flat].reshape(product.sizes)
        for axis, factor in enumerate(product.factors):
            slabs = np.moveaxis(grid, axis, 0).reshape(len(factor), -1)
            rows.append(slabs.reshape(-1))
            columns.append(np.repeat(np.arange(len(factor)) + len(owners), slabs.shape[1]))
            owners.extend(labels[factor])
    row, column, owner = np.concatenate(rows), np.concatenate(columns), np.array(owners)
    slab = _ones(row, column, (classes, len(owner)))
    slab_size = np.asarray(slab.sum(axis=0)).reshape(-1)
    owned = _ones(owner, np.arange(len(owner)), (classes, len(owner)))
    implies = _clip(owned @ slab.T)  # [classes, classes]: factor class -> classes of its slabs

    held = np.flatnonzero(owner == frozen)
    while True:
        before = closure.nnz
        closure = _clip(closure + closure @ implies)
        touched = (closure @ slab).tocoo()
        whole = touched.data == slab_size[touched.col]
        if held.size:
            whole &= ~np.isin(touched.col, held)
        gone = _ones(touched.row[whole], owner[touched.col[whole]], closure.shape)
        closure = _clip(closure + gone)
        if closure.nnz == before:
            break

    accepted = np.asarray(closure[:, [frozen]].sum(axis=1)).reshape(-1) == 0
    refused: dict[int, int] = {}
    for product in products:
        whole_rows = _only_whole_slabs(closure, labels, product)
        for index in np.flatnonzero(~whole_rows & accepted):
            refused[int(generators[index])] = product.origin
        accepted &= whole_rows
    return closure[np.flatnonzero(accepted)].astype(bool), refused


def _only_whole_slabs(closure: csr_array, labels: np.ndarray, product: Product) -> np.ndarray:
    """bool [units]: what left of the product's grid is a union of slabs, and not all of it."""
    flat, count = np.unique(labels[product.flat], return_counts=True)
    removed = closure[:, flat] @ count
    kept = np.ones(closure.shape[0], np.int64)
    for factor in product.factors:
        classes, count = np.unique(labels[factor], return_counts=True)
        kept *= len(factor) - closure[:, classes] @ count
    return (removed == len(product.flat) - kept) & (kept > 0)


def _ones(row: np.ndarray, column: np.ndarray, shape: tuple[int, int]) -> csr_array:
    matrix = coo_array((np.ones(len(row), np.int32), (row, column)), shape=shape)
    return _clip(csr_array(matrix))


def _clip(matrix: csr_array) -> csr_array:
    matrix = csr_array(matrix)
    matrix.sum_duplicates()
    matrix.data = np.ones_like(matrix.data)
    return matrix

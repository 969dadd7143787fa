"""Solve the facts of an ``Axes``: classes of ids, and the units that can leave.

First a fixpoint: connected components over ``same``, then every product is looked at as a grid
of classes; a factor whose slab touches what is pinned is pinned, a factor along which the grid
does not vary only repeats and is pinned, a product with one moving factor becomes ``same``.
Then closures (``closures.py``) say what leaves with each class that can leave.
Sums of dimension sizes, never of activations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.structure.axes import Axes, Pin, Product, Sparse, labels_of
from secateur.structure.closures import closures


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
    units: Sparse
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
            new_pairs = _unify_equal_products(labels, products)
        if not new_pairs and not new_pins:
            new_pairs = _unify_equal_slabs(labels, products)
        if not new_pairs and not new_pins:
            new_pins = _pin_repetitions(labels, weak, axes.origin)
        if not new_pairs and not new_pins:
            break
        pairs += new_pairs
        pins += new_pins
    frozen = int(labels[0])
    units, refused = closures(labels, frozen, products)
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


def _unify_equal_products(
    labels: np.ndarray, products: list[Product]
) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Products of the same factors are the same: the train graph repeats the eval graph's."""
    first: dict[tuple[bytes, ...], Product] = {}
    pairs = []
    for product in products:
        factors = tuple(labels[factor].tobytes() for factor in product.factors)
        other = first.setdefault(factors, product)
        if (labels[other.flat] != labels[product.flat]).any():
            pairs.append((other.flat, product.flat, product.origin))
    return pairs


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

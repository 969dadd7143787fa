"""What leaves with a class: closures over the products that stayed live.

A class leaves -> the slabs of its factors leave -> factors whose whole slab is gone leave. A
closure is a unit when every product it touches lost exactly whole slabs. A closure that took
parts of slabs is completed: the factor that owns them with the least beside them leaves too.
Vectorised over the units.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array, vstack

from secateur.structure.axes import Product, Sparse

# Completion looks at every product for every closure; beyond this many steps it is left out.
COMPLETION_STEPS = 20_000_000
COMPLETION_CELLS = 1 << 25  # how many classes of closures are held at a time


def closures(
    labels: np.ndarray, frozen: int, products: list[Product]
) -> tuple[Sparse, dict[int, int]]:
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
    products = _different(products, labels)

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
    units = closure[np.flatnonzero(accepted)].astype(bool)
    if refused:
        completed = complete(closure[np.flatnonzero(~accepted)], labels, frozen, products)
        units = csr_array(vstack([units, completed])).astype(bool)
    return units, refused


def _different(products: list[Product], labels: np.ndarray) -> list[Product]:
    """Those that say something new; the train graph repeats what the eval graph has said."""
    first: dict[tuple[bytes, ...], Product] = {}
    for product in products:
        said = [labels[product.flat], *(labels[factor] for factor in product.factors)]
        first.setdefault(tuple(ids.tobytes() for ids in said), product)
    return list(first.values())


def _only_whole_slabs(closure: Sparse, labels: np.ndarray, product: Product) -> np.ndarray:
    """bool [units]: what left of the product's grid is a union of slabs, and not all of it."""
    flat, count = np.unique(labels[product.flat], return_counts=True)
    removed = closure[:, flat] @ count
    kept = np.ones(closure.shape[0], np.int64)
    for factor in product.factors:
        classes, count = np.unique(labels[factor], return_counts=True)
        kept *= len(factor) - closure[:, classes] @ count
    return (removed == len(product.flat) - kept) & (kept > 0)


def _ones(row: np.ndarray, column: np.ndarray, shape: tuple[int, int]) -> Sparse:
    matrix = coo_array((np.ones(len(row), np.int32), (row, column)), shape=shape)
    return _clip(csr_array(matrix))


def _clip(matrix: Sparse) -> Sparse:
    matrix = csr_array(matrix)
    matrix.sum_duplicates()
    matrix.data = np.ones_like(matrix.data)
    return matrix


def complete(closure: Sparse, labels: np.ndarray, frozen: int, products: list[Product]) -> Sparse:
    """Units [n, classes] that refused closures become when half-taken slabs leave whole."""
    grids = [_Grid.of(product, labels) for product in products]
    count, classes = closure.shape
    within = _ones(
        np.concatenate([grid.touched for grid in grids]),
        np.repeat(np.arange(len(grids)), [len(grid.touched) for grid in grids]),
        (classes, len(grids)),
    )
    found: dict[bytes, np.ndarray] = {}
    steps = COMPLETION_STEPS
    at_once = max(1, COMPLETION_CELLS // max(classes, *(grid.classes.size for grid in grids)))
    for start in range(0, count, at_once):
        units = np.arange(start, min(start + at_once, count))
        gone = np.ascontiguousarray(closure[units].toarray().T > 0)
        gone = gone[:, ~gone[frozen]]
        touched = np.asarray(within.T @ gone > 0)
        # due[rule, product, unit]: something of the product left since the rule has seen it
        due = np.stack([touched] * len(_RULES))
        while gone.shape[1] and steps > 0:
            changed = np.zeros(gone.shape[1], bool)
            for rule, at in itertools.product(range(len(_RULES)), range(len(grids))):
                units = np.flatnonzero(due[rule, at])
                if not units.size:
                    continue
                steps -= units.size
                due[rule, at] = False
                lost, unit = _RULES[rule](gone, units, grids[at], frozen)
                gone[lost, unit] = True
                changed[unit] = True
                there, product = (_ones(unit, lost, (len(changed), classes)) @ within).nonzero()
                due[:, product, there] = True
                touched[product, there] = True
            ended = ~changed
            for grid, touches in zip(grids, touched, strict=True):
                units = np.flatnonzero(ended & touches)
                ended[units] = _is_whole(gone, units, grid)
            found.update((unit.tobytes(), unit) for unit in gone[:, ended].T)
            goes_on = changed & ~gone[frozen]
            gone, touched, due = gone[:, goes_on], touched[:, goes_on], due[:, :, goes_on]
    return csr_array(np.array(list(found.values())).reshape(-1, classes))


@dataclass(frozen=True)
class _Grid:
    """The classes of a product's elements, and of the indices of each of its factors."""

    classes: np.ndarray
    factors: list[np.ndarray]
    touched: np.ndarray

    @staticmethod
    def of(product: Product, labels: np.ndarray) -> _Grid:
        factors = [labels[factor] for factor in product.factors]
        grid = labels[product.flat].reshape(product.sizes)
        return _Grid(grid, factors, np.unique(np.concatenate([grid.reshape(-1), *factors])))


def _own_whole_slabs(
    gone: np.ndarray, units: np.ndarray, grid: _Grid, frozen: int
) -> tuple[np.ndarray, np.ndarray]:
    """Elements that left without any of their factors: the cheapest factor leaves with them.

    gone: bool [classes, all units]. Returns the classes that leave, and the unit of each.
    """
    lost = _picked(gone, grid.classes, units)
    bare = lost & ~_covered(gone, units, grid)
    dims = tuple(range(grid.classes.ndim))
    short = np.flatnonzero(bare.any(axis=dims))
    units, bare = units[short], bare[..., short]
    needs, costs = [], []
    for axis, classes in enumerate(grid.factors):
        need = np.asarray(bare.any(axis=tuple(d for d in dims if d != axis)))
        all_of_it = (need | gone[np.ix_(classes, units)]).all(axis=0)
        impossible = all_of_it | need[classes == frozen].any(axis=0)
        cost = need.sum(axis=0) * (grid.classes.size // grid.classes.shape[axis])
        needs.append(need)
        costs.append(np.where(impossible, np.inf, cost))
    cheapest = np.argmin(costs, axis=0)
    leaving = []
    for axis, (need, classes) in enumerate(zip(needs, grid.factors, strict=True)):
        place, unit = np.nonzero(need & ((cheapest == axis) & np.isfinite(costs[axis])))
        leaving.append((classes[place], units[unit]))
    classes, owners = zip(*leaving, strict=True)
    return np.concatenate(classes), np.concatenate(owners)


def _follow_factors(
    gone: np.ndarray, units: np.ndarray, grid: _Grid, frozen: int
) -> tuple[np.ndarray, np.ndarray]:
    """The slabs of a factor that leaves leave with it; returns as above."""
    late = _covered(gone, units, grid) & ~_picked(gone, grid.classes, units)
    place, unit = np.nonzero(late.reshape(-1, len(units)))
    return grid.classes.reshape(-1)[place], units[unit]


_RULES = (_own_whole_slabs, _follow_factors)


def _picked(gone: np.ndarray, classes: np.ndarray, units: np.ndarray) -> np.ndarray:
    """bool [*classes, units]."""
    return gone[classes.reshape(-1, 1), units].reshape(*classes.shape, len(units))


def _covered(gone: np.ndarray, units: np.ndarray, grid: _Grid) -> np.ndarray:
    """bool [*grid, units]: which elements leave because a factor of theirs does."""
    result: np.ndarray = np.zeros((), bool)
    for axis, classes in enumerate(grid.factors):
        shape = [1] * len(grid.factors) + [len(units)]
        shape[axis] = len(classes)
        result = result | _picked(gone, classes, units).reshape(shape)
    return result


def _is_whole(gone: np.ndarray, units: np.ndarray, grid: _Grid) -> np.ndarray:
    """bool [units]: what left of the grid is a union of slabs, and not all of it."""
    lost = _picked(gone, grid.classes, units)
    dims = tuple(range(grid.classes.ndim))
    return (lost == _covered(gone, units, grid)).all(axis=dims) & ~lost.all(axis=dims)

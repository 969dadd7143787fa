"""What leaves with a class: closures over the products that stayed live.

A class leaves -> the slabs of its factors leave -> factors whose whole slab is gone leave. A
closure is a unit when every product it touches lost exactly whole slabs. A closure that took
parts of slabs is completed: the factor that owns them with the least beside them leaves too.
Vectorised over the units, except for the few closures that need completion.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array, csr_array, vstack

from secateur.structure.axes import Product, Sparse

# Completion is a loop over closures and products; beyond this many steps it is left out.
COMPLETION_STEPS = 20_000_000


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
        completed = complete(closure[np.flatnonzero(~accepted)], labels, frozen, products, implies)
        units = csr_array(vstack([units, completed])).astype(bool)
    return units, refused


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


def complete(
    closure: Sparse,
    labels: np.ndarray,
    frozen: int,
    products: list[Product],
    implies: Sparse,
) -> Sparse:
    """Units [n, classes] that refused closures become when half-taken slabs leave whole."""
    found: dict[bytes, np.ndarray] = {}
    grids = [labels[product.flat].reshape(product.sizes) for product in products]
    factors = [[labels[factor] for factor in product.factors] for product in products]
    steps = 0
    for row in range(closure.shape[0]):
        gone = np.zeros(closure.shape[1], bool)
        gone[closure.indices[closure.indptr[row] : closure.indptr[row + 1]]] = True
        known: set[bytes] = set()
        while steps < COMPLETION_STEPS:
            before = gone.tobytes()
            if before in known or gone[frozen]:
                break
            known.add(before)
            steps += len(products)
            for grid, parts in zip(grids, factors, strict=True):
                _own_whole_slabs(gone, grid, parts, frozen)
            gone[csr_array(implies[np.flatnonzero(gone)]).indices] = True
            if gone.tobytes() == before:
                if all(map(lambda g, p: _is_whole(gone, g, p), grids, factors)):
                    found[before] = gone
                break
    rows = np.array(list(found.values())) if found else np.zeros((0, closure.shape[1]), bool)
    return csr_array(rows)


def _own_whole_slabs(
    gone: np.ndarray, grid: np.ndarray, parts: list[np.ndarray], frozen: int
) -> None:
    """Elements that left without any of their factors: the cheapest factor leaves with them."""
    lost = gone[grid]
    bare = lost & ~_covered(gone, parts)
    if not bare.any():
        return
    options = []
    for axis, classes in enumerate(parts):
        need = bare.any(axis=tuple(d for d in range(grid.ndim) if d != axis))
        if (classes[need] != frozen).all() and not (need | gone[classes]).all():
            options.append((int(need.sum()) * (grid.size // grid.shape[axis]), axis, need))
    if options:
        _, axis, need = min(options, key=lambda option: option[:2])
        gone[parts[axis][need]] = True


def _covered(gone: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
    """bool grid: which elements leave because a factor of theirs does."""
    result = np.zeros((), bool)
    for axis, classes in enumerate(parts):
        shape = [1] * len(parts)
        shape[axis] = -1
        result = result | gone[classes].reshape(shape)
    return result


def _is_whole(gone: np.ndarray, grid: np.ndarray, parts: list[np.ndarray]) -> bool:
    lost = gone[grid]
    return bool((lost == _covered(gone, parts)).all()) and not lost.all()

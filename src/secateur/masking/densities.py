"""How dense each layer stays: Erdos-Renyi kernel densities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def erk_counts(shapes: Mapping[str, Sequence[int]], zeros: float) -> dict[str, int]:
    """How many elements of each tensor leave: ``round(zeros * n)`` of all n together.

    The density of a weight is c (sum of its sizes) / (product of its sizes), at most 1; c is such
    that the shares add up, what the clipped ones cannot take goes to the others (Evci et al.,
    "Rigging the Lottery", ICML 2020). Counts are rounded by largest remainders.
    """
    names = list(shapes)
    sizes = np.array([float(np.prod(shapes[name])) for name in names])
    raw = np.array([float(np.sum(shapes[name])) for name in names]) / sizes
    leaving = round(zeros * sizes.sum())
    budget = sizes.sum() - leaving
    full = np.zeros(len(names), dtype=bool)
    density = np.ones(len(names))
    while not full.all():
        free = ~full
        scale = (budget - sizes[full].sum()) / (raw[free] * sizes[free]).sum()
        density = np.where(full, 1.0, scale * raw)
        over = free & (density > 1)
        if not over.any():
            break
        full |= over
    kept = np.minimum(density, 1.0) * sizes
    whole = np.floor(kept + 1e-9)
    for place in np.argsort(-(kept - whole), kind="stable")[: round(budget - whole.sum())]:
        whole[place] += 1
    return {name: int(sizes[n] - whole[n]) for n, name in enumerate(names)}

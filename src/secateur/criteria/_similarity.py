"""Which units say the same: correlations, and a tree of clusters."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def alone(squares: Tensor) -> Tensor:
    """1 - the largest absolute correlation with any other unit: [units].

    squares: products of all pairs [units, units], such as covariances. Units that are always zero
    have 0.
    """
    correlation = correlations(squares).abs()
    correlation.fill_diagonal_(0)
    dead = squares.diagonal() <= 0
    found = (1 - correlation.amax(1)).clamp_min(0)
    return torch.where(dead, 0.0, found)


def correlations(squares: Tensor) -> Tensor:
    """Products of pairs over the root of those with themselves: [units, units], within -1 and 1."""
    size = squares.diagonal().clamp_min(0).sqrt()
    scale = torch.where(size > 0, size, 1.0)
    return (squares / scale / scale[:, None]).clamp(-1, 1)


def heights(distances: Tensor, strengths: Tensor) -> Tensor:
    """At what distance a unit is absorbed, where the nearest clusters are joined one by one and the
    strongest unit of the two goes on: [units]. The k highest are one unit of each of k clusters.

    distances: [units, units]. Clusters are as far apart as their units are on average (average
    linkage). The last unit has the greatest height too; a ramp by strength orders what is equal.
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    units = len(strengths)
    strength = strengths.numpy()
    found = np.zeros(units)
    if units > 1:
        table = distances.numpy()
        table = (table + table.T) / 2
        np.fill_diagonal(table, 0)
        leaders = list(range(units))
        last = 0.0
        for left, right, height, _ in linkage(squareform(table, checks=False), "average"):
            a, b = leaders[int(left)], leaders[int(right)]
            first, second = (a, b) if strength[a] >= strength[b] else (b, a)
            found[second] = last = max(float(height), last)
            leaders.append(first)
        found[leaders[-1]] = last
        found += 1e-9 * (last or 1.0) * (strength / max(float(strength.max()), 1e-300))
        found[leaders[-1]] += 1e-9 * (last or 1.0)
    return torch.from_numpy(found)

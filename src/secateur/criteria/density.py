"""Density of scores: how alone a magnitude stands among the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import parameters
from secateur.criteria._norms import norm
from secateur.errors import InputError
from secateur.protocols import Statistics, UnitGroup


@criterion("density")
@dataclass(frozen=True)
class GapDensity:
    """Gaps between adjacent sorted magnitudes: units where these are dense go.

    With the L2 norms of a group sorted, s(1) <= s(2) <= ..., score[u at i] = mean of the gaps from
    s(i-k) to s(i+k), cut at the ends: the reciprocal of the density k / (n * gap) of nearest
    neighbours, but for n. It says how alone a magnitude stands and not how large it is, and is
    worth more as a rule for a threshold, at the largest gap. No published method; k is 1 by
    default.
    """

    needs: frozenset[str] = frozenset()
    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError(f"k is {self.k}; give at least 1 neighbour")

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]."""
        sizes = norm(parameters(group), statistics, 2).double()
        order = sizes.argsort(stable=True)
        ascending, place = sizes[order], torch.arange(len(sizes))
        low, high = (place - self.k).clamp_min(0), (place + self.k).clamp_max(len(sizes) - 1)
        gaps = (ascending[high] - ascending[low]) / (high - low).clamp_min(1)
        return torch.empty_like(sizes).index_copy(0, order, gaps)

"""CHIP: channel independence."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected
from secateur.protocols import Statistics, UnitGroup

CELLS = 2**24  # of matrices that are decomposed at a time


@criterion("chip")
@dataclass(frozen=True)
class ChannelIndependence:
    """Nuclear norm that the feature maps of a sample lose without a unit; copies of others go.

    score[u] = mean over samples of |A|_* - |A with row u zeroed|_*, A [units, places] the maps of
    one sample. As many decompositions as units for each sample, so 8 samples by default, and hours
    for many hundreds of units. Sui et al., "CHIP: CHannel Independence-based Pruning", NeurIPS
    2021. Needs inputs, no labels.
    """

    needs: frozenset[str] = frozenset({"maps"})
    samples: int = 8

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError without feature maps."""
        maps = collected(statistics.maps, group.name, "chip", "maps")[: self.samples]
        rows = maps.flatten(2).double()
        return torch.stack([_independence(one) for one in rows]).mean(0)


def _independence(rows: torch.Tensor) -> torch.Tensor:
    """[units] of one matrix [units, places], by the eigenvalues of the smaller of its products."""
    units, places = rows.shape
    whole = torch.linalg.svdvals(rows).sum()
    left = []
    step = max(1, CELLS // min(units, places) ** 2)
    for start in range(0, units, step):
        some = range(start, min(start + step, units))
        if places < units:
            square = rows.T @ rows
            without = torch.stack([square - torch.outer(rows[u], rows[u]) for u in some])
        else:
            square = rows @ rows.T
            without = square.repeat(len(some), 1, 1)
            for place, unit in enumerate(some):
                without[place, unit] = 0
                without[place, :, unit] = 0
        left.append(torch.linalg.eigvalsh(without).clamp_min(0).sqrt().sum(1))
    return (whole - torch.cat(left)).clamp_min(0)

"""HRank: ranks of feature maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.criteria import criterion
from secateur.criteria._gather import collected
from secateur.errors import InputError
from secateur.protocols import Statistics, UnitGroup


@criterion("hrank")
@dataclass(frozen=True)
class FeatureMapRank:
    """Rank of a unit's feature map as a matrix, averaged over samples.

    score[u] = mean over at most 64 samples of rank(a_u), a_u [height, width]; further dimensions
    are joined to the width. Small maps are all of full rank, and say nothing. Lin et al., "HRank",
    CVPR 2020. Needs inputs of images, no labels.
    """

    needs: frozenset[str] = frozenset({"maps"})

    def __call__(self, group: UnitGroup, statistics: Statistics) -> torch.Tensor:
        """float64 [group.size]. Raises InputError for a group whose maps are no images."""
        maps = collected(statistics.maps, group.name, "hrank", "maps")
        if maps.dim() < 4:
            raise InputError(
                f"hrank needs feature maps of two dimensions, and those of group {group.name!r} "
                f"have {maps.dim() - 2}; use the criterion 'chip', or leave the group out with "
                f"layers={{{group.name!r}: 'keep'}}"
            )
        return torch.linalg.matrix_rank(maps.flatten(3)).double().mean(0)

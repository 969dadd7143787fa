"""Cumulative energy of scores."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from secateur.masking import Energy
from secateur.planning import StructureLike
from secateur.policies import policy
from secateur.policies._cutting import cut
from secateur.policies._request import Request

KEPT = 0.99


@policy("energy")
def energy(
    scores: Mapping[str, torch.Tensor], structure: StructureLike, request: Request
) -> dict[str, tuple[int, ...]]:
    """The fewest units of every group stay that hold a share of its sum of squared scores.

    The share is ``request.threshold``, 0.99 where that is left out. Each group ends at a ratio of
    its own, and its scale does not matter (Ye et al., "Optimal Thresholding", 2020).
    Raises InputError for a share out of (0, 1], negative scores, and a request with budgets.
    """
    kept = KEPT if request.threshold is None else request.threshold
    return cut(scores, structure, request, Energy(kept), "energy")

"""The same share of every group's own score."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from secateur.planning import StructureLike
from secateur.policies import policy
from secateur.policies._descent import descend
from secateur.policies._ladder import Ladder
from secateur.policies._request import Request
from secateur.policies._scale import nonnegative


@policy("local")
def local(
    scores: Mapping[str, torch.Tensor], structure: StructureLike, request: Request
) -> dict[str, tuple[int, ...]]:
    """Every group gives up the same share of its own summed score, each at a ratio of its own.

    A group with many weak units loses many, one with even scores loses few. Units are ranked
    inside their group alone, and no scale of a group matters. Compare the energy rule of Ye et
    al., "Optimal Thresholding", 2020. Scores must not be negative.
    Raises BudgetError for budgets out of reach, InputError for scores that cannot be used.
    """
    return descend(scores, structure, request, _lost)


def _lost(ladder: Ladder) -> np.ndarray:
    """Share of the summed score that is gone with the first units: float64 [units]."""
    lost = np.cumsum(nonnegative(ladder, "the policy 'local'"))
    return lost / lost[-1] if lost[-1] else lost

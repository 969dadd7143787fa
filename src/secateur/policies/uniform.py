"""The same share of every group."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from secateur.planning import StructureLike
from secateur.policies import policy
from secateur.policies._descent import descend
from secateur.policies._request import Request


@policy("uniform")
def uniform(
    scores: Mapping[str, torch.Tensor], structure: StructureLike, request: Request
) -> dict[str, tuple[int, ...]]:
    """The same share of every group leaves, lowest scores first.

    Scores decide which units leave, never how many. Rounding may hold a group one step above.
    Raises BudgetError for budgets out of reach, InputError for scores that cannot be used.
    """
    return descend(
        scores,
        structure,
        request,
        lambda ladder: np.arange(1, ladder.group.size + 1) / ladder.group.size,
        refill=False,
    )

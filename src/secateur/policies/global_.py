"""One ranking of all units."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from secateur.planning import StructureLike
from secateur.policies import policy
from secateur.policies._descent import descend
from secateur.policies._request import Request
from secateur.policies._scale import normaliser


@policy("global")
def global_(
    scores: Mapping[str, torch.Tensor], structure: StructureLike, request: Request
) -> dict[str, tuple[int, ...]]:
    """The lowest of all units leave, in one ranking over normalised scores.

    ``request.normalise`` makes groups comparable: by default a unit is ranked by its score as a
    multiple of its group's mean. Floors keep groups from vanishing.
    Raises BudgetError for budgets out of reach, InputError for scores that cannot be used.
    """
    return descend(scores, structure, request, normaliser(request.normalise, structure))

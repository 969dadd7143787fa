"""A fixed threshold on scores."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from secateur.errors import InputError
from secateur.masking import Below
from secateur.planning import StructureLike
from secateur.policies import policy
from secateur.policies._cutting import cut
from secateur.policies._request import Request


@policy("threshold")
def threshold(
    scores: Mapping[str, torch.Tensor], structure: StructureLike, request: Request
) -> dict[str, tuple[int, ...]]:
    """Every unit leaves that scores at most a fixed threshold, whatever that costs or saves.

    The threshold is ``request.threshold``. Scores are those of the criterion, divided as
    ``request.normalise`` says (``none``: as they are). Floors and rounding hold. Network slimming
    (Liu et al., 2017) is this rule on |gamma|.
    Raises InputError without a threshold, and for a request with budgets.
    """
    if request.threshold is None:
        raise InputError("the scope 'threshold' wants a number; give threshold, such as 0.01")
    return cut(scores, structure, request, Below(request.threshold), "threshold")

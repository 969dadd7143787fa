"""The natural break between scores."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from secateur.errors import InputError
from secateur.masking import NaturalBreak
from secateur.planning import StructureLike
from secateur.policies import policy
from secateur.policies._cutting import cut
from secateur.policies._request import Request


@policy("natural-break")
def natural_break(
    scores: Mapping[str, torch.Tensor], structure: StructureLike, request: Request
) -> dict[str, tuple[int, ...]]:
    """Units below the largest relative gap of their group's scores leave, where there is a break.

    A group whose largest gap could as well be chance loses nothing: it has no natural break. The
    gap is looked for between a tenth and nine tenths of the units; see ``masking.NaturalBreak``.
    Raises InputError for negative scores, a threshold, and a request with budgets.
    """
    if request.threshold is not None:
        raise InputError(
            f"the scope 'natural-break' finds its threshold itself, and {request.threshold} was "
            "given; leave it out, or take the scope 'threshold'"
        )
    return cut(scores, structure, request, NaturalBreak(), "natural-break")

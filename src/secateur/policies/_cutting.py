"""Cuts at a threshold: how many units leave follows from the scores, and not from a budget."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from secateur.errors import InputError
from secateur.masking import Rule
from secateur.planning import StructureLike
from secateur.policies._ladder import ladders
from secateur.policies._request import Request
from secateur.policies._scale import normaliser
from secateur.structure.groups import BRANCH


def cut(
    scores: Mapping[str, torch.Tensor],
    structure: StructureLike,
    request: Request,
    rule: Rule,
    name: str,
) -> dict[str, tuple[int, ...]]:
    """Of each group the units that the rule says, as many as rounding and floors let go.

    rule: sees the normalised scores of the units that are still there, in rising order. No unit
    leaves that the rule would keep. Groups with a ratio lose that share instead.
    name: of the policy. Raises InputError for a request with budgets, and as ``ladders`` does.
    """
    if request.budgets:
        raise InputError(
            f"the scope {name!r} cuts at a threshold and keeps no budget of "
            f"{', '.join(request.budgets)}; leave the target out, or take the scope 'global'"
        )
    scale = normaliser(request.normalise, structure)
    units = {group: score for group, score in scores.items() if not group.startswith(BRANCH)}
    removal = {}
    for ladder in ladders(units, structure, request):
        gone = ladder.counts[0]
        if len(ladder.counts) > 1:
            rising = torch.from_numpy(scale(ladder)[gone:].copy())
            wanted = gone + rule.count(rising, torch.ones(len(rising), dtype=torch.int64))
            gone = max(count for count in ladder.counts if count <= wanted)
        if gone:
            removal[ladder.group.name] = tuple(sorted(ladder.order[:gone].tolist()))
    return removal

"""One ranking for each topology."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from secateur.planning import StructureLike
from secateur.policies import policy
from secateur.policies._descent import descend
from secateur.policies._ladder import Ladder, ladders
from secateur.policies._request import Request
from secateur.policies._scale import normaliser
from secateur.structure.groups import BRANCH, Group

Topology = tuple[tuple[object, ...], ...]


@policy("isomorphic")
def isomorphic(
    scores: Mapping[str, torch.Tensor], structure: StructureLike, request: Request
) -> dict[str, tuple[int, ...]]:
    """The same share of every topology leaves, its lowest units in one ranking.

    Groups are compared only with those that are built alike: whose members are read by the same
    operations, in the same roles, along the same dimensions, with the same kernels; widths may
    differ. So a depthwise kernel never competes with a projection (Fang et al., "Isomorphic
    Pruning for Vision Models", ECCV 2024). Scores are compared as ``request.normalise`` says.
    Raises BudgetError for budgets out of reach, InputError for scores that cannot be used.
    """
    units = {name: score for name, score in scores.items() if not name.startswith(BRANCH)}
    scale = normaliser(request.normalise, structure)
    classes: dict[Topology, list[Ladder]] = {}
    for ladder in ladders(units, structure, request):
        if len(ladder.counts) > 1:
            classes.setdefault(topology(ladder.group, structure), []).append(ladder)
    at: dict[str, np.ndarray] = {}
    for alike in classes.values():
        line = np.sort(np.concatenate([scale(ladder) for ladder in alike]))
        for ladder in alike:
            rank = np.searchsorted(line, scale(ladder), side="right")
            at[ladder.group.name] = rank / len(line)
    return descend(scores, structure, request, lambda ladder: at[ladder.group.name])


def topology(group: Group, structure: StructureLike) -> Topology:
    """What all groups that are built like this one have in common; no name and no width."""
    kinds = []
    for member in group.members:
        shape = structure.shapes[member.tensor]
        kinds.append((
            member.role, member.dim, len(shape), tuple(shape[2:]), member.index.shape[1],
            structure.uses(member.tensor),
        ))  # fmt: skip
    return tuple(sorted(kinds, key=repr))

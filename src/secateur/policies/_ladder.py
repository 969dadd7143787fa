"""The widths a group may take, from full down to its floor."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from secateur.errors import InputError
from secateur.planning import StructureLike
from secateur.policies._request import Request
from secateur.structure.groups import BRANCH, Group


@dataclass(frozen=True, eq=False)
class Ladder:
    """One group's way down.

    order:  all units in the order in which they leave: removed earlier, then by rising score.
    scores: float64 [units], in that order.
    counts: numbers of removed units, rising; the first rung is where the group stands now.
    """

    group: Group
    order: np.ndarray
    scores: np.ndarray
    counts: tuple[int, ...]

    def gone(self, rung: int) -> np.ndarray:
        """The units that are gone on a rung, in the order in which they left."""
        return self.order[: self.counts[rung]]

    def units(self, rung: int) -> tuple[int, ...]:
        """The same, sorted."""
        return tuple(np.sort(self.gone(rung)).tolist())


def ladders(
    scores: Mapping[str, torch.Tensor], structure: StructureLike, request: Request
) -> list[Ladder]:
    """One for every group, in the structure's order; groups held by a rule have one rung.

    Then one for every branch that has a score, or has left.
    Raises InputError for scores that are missing, of the wrong size, or not finite, and for rules
    about groups that do not exist.
    """
    groups = {group.name: group for group in structure.groups}
    mentioned = (*request.ratios, *request.kept, *request.removed, *scores)
    known = {*groups, *_branches(structure, mentioned)}
    for name in mentioned:
        if name not in known:
            raise InputError(f"there is no group {name!r} in the structure; print it to see all")
    found = [_ladder(group, groups, scores, request) for group in structure.groups]
    for name in _branches(structure, (*request.removed, *scores)):
        group, gone = Group(name, 1, ()), bool(request.removed.get(name))
        values = np.zeros(1) if gone else _checked(group, scores)
        held = gone or name in request.kept
        found.append(Ladder(group, np.zeros(1, np.int64), values, (int(gone),) if held else (0, 1)))
    return found


def _branches(structure: StructureLike, mentioned: Iterable[str]) -> list[str]:
    """Those that are mentioned, in the structure's order."""
    names = {name for name in mentioned if name.startswith(BRANCH)}
    return [branch.name for branch in structure.branches if branch.name in names] if names else []


def _ladder(
    group: Group,
    groups: Mapping[str, Group],
    scores: Mapping[str, torch.Tensor],
    request: Request,
) -> Ladder:
    gone = np.unique(np.asarray(request.removed.get(group.name, ()), np.int64))
    if gone.size and not 0 <= gone[0] <= gone[-1] < group.size:
        raise InputError(
            f"removed names unit {gone[-1] if gone[0] >= 0 else gone[0]} of group "
            f"{group.name!r}, which has units 0 to {group.size - 1}"
        )
    if group.name in request.kept:
        order = np.concatenate([gone, np.setdiff1d(np.arange(group.size), gone)])
        return Ladder(group, order, np.zeros(group.size), (len(gone),))
    values = _checked(group, scores)
    first = np.ones(group.size, bool)
    first[gone] = False
    order = np.lexsort((values, first))  # stable: equal scores leave in the order of their numbers
    grain = request.grains.get(group.name) or _grain(group, groups, request)
    least = math.ceil(request.least(group.size, max(1, group.chosen)) / grain) * grain
    widths = range(group.size // grain * grain, least - 1, -grain)
    lower = (group.size - width for width in widths if group.size - width > len(gone))
    counts = (len(gone), *lower)
    if group.name in request.ratios:
        wanted = request.ratios[group.name] * group.size
        counts = (min(counts, key=lambda count: (abs(count - wanted), count)),)
    return Ladder(group, order, values[order], counts)


def _checked(group: Group, scores: Mapping[str, torch.Tensor]) -> np.ndarray:
    if group.name not in scores:
        raise InputError(f"group {group.name!r} has no scores; score it, or put it into kept")
    values = scores[group.name].detach().double().cpu().numpy()
    if values.shape != (group.size,):
        raise InputError(
            f"the scores of group {group.name!r} have shape {list(values.shape)}; expected "
            f"one number for each of its {group.size} units"
        )
    if not np.isfinite(values).all():
        raise InputError(
            f"the scores of group {group.name!r} are not all finite; "
            "check the weights, and the data that they were computed with"
        )
    return values


def _grain(group: Group, groups: Mapping[str, Group], request: Request) -> int:
    """Kept units come in multiples of this, so that widths are multiples of ``round_to``.

    A unit that owns k rows of its producing tensor needs fewer units for a whole multiple. Where
    groups cross (heads and head dims), k shrinks with the other group; so the larger of the two
    keeps the multiple by itself, and every product of the two is one.
    """
    smaller = any(
        (groups[name].size, name) < (group.size, group.name) and name not in request.kept
        for name in group.overlaps
    )
    rows = {1} if smaller else {m.index.shape[1] for m in group.members if m.role == "out"}
    return math.lcm(*(request.round_to // math.gcd(request.round_to, k) for k in rows or {1}))

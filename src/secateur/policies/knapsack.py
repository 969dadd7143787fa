"""The least loss that the budgets allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from secateur.planning import StructureLike
from secateur.policies import policy
from secateur.policies._allocation import Levels, Space, allocate
from secateur.policies._descent import Search
from secateur.policies._ladder import Ladder, ladders
from secateur.policies._request import Request
from secateur.policies._scale import normaliser
from secateur.structure.groups import BRANCH

LEVELS = 25  # of a group; the widths between are used at the end, to fill the budget


@policy("knapsack")
def knapsack(
    scores: Mapping[str, torch.Tensor], structure: StructureLike, request: Request
) -> dict[str, tuple[int, ...]]:
    """The widths of least summed score under the budgets: a multiple-choice knapsack.

    A branch with a score may leave whole, and the loss of its groups then with it.
    Scores are losses that add up, as those of the criterion ``obs`` do; scores of other criteria
    are normalised first. Exact where costs add up, by repeated linearisation and exchange where
    the cost of a layer depends on several groups (SPDY, Frantar and Alistarh, 2022, solves the
    additive case). Never worse, in summed score, than the same share of every group.
    Raises BudgetError for budgets out of reach, InputError for scores that cannot be used.
    """
    found = ladders(scores, structure, request)
    scale = normaliser(request.normalise, structure)
    losses = [np.concatenate([[0.0], np.cumsum(np.maximum(_scaled(x, scale), 0))]) for x in found]
    search = Search(structure, request, found)
    useful = search.useful()
    rungs = [0] * len(found)
    lowest = _with(rungs, useful, [len(found[n].counts) - 1 for n in useful])
    if not search.holds(lowest):
        raise search.refusal(search.cost(lowest))
    if not useful:
        return search.removal(rungs)
    coarse = [_spread(len(found[n].counts)) for n in useful]
    at = _solve(search, found, losses, useful, rungs, coarse)
    fine = [_near(rung, len(found[n].counts)) for rung, n in zip(at, useful, strict=True)]
    at = _solve(search, found, losses, useful, rungs, fine)
    return search.removal(_with(rungs, useful, at))


def _solve(
    search: Search,
    found: Sequence[Ladder],
    losses: Sequence[np.ndarray],
    useful: Sequence[int],
    rungs: list[int],
    choices: Sequence[Sequence[int]],
) -> list[int]:
    """The rung of each useful ladder; choices: the rungs that it may take."""
    limits = np.array(list(search.limits.values()))

    def rung_of(levels: Levels) -> list[int]:
        return [c[level] for c, level in zip(choices, levels, strict=True)]

    def cost(levels: Levels) -> np.ndarray:
        spent = search.cost(_with(rungs, useful, rung_of(levels)))
        return np.array([getattr(spent, kind) for kind in search.limits]) / limits

    errors = [
        np.array([losses[n][found[n].counts[rung]] for rung in options])
        for n, options in zip(useful, choices, strict=True)
    ]
    last = tuple(len(c) - 1 for c in choices)
    space = Space(errors, cost, _inside(search, found, useful))
    whole = tuple(0 if place in space.inside else level for place, level in enumerate(last))
    starts = [_even(space, whole), whole] if space.holds(whole) else []
    return rung_of(allocate(space, [*starts, *([last] if space.inside or not starts else [])]))


def _inside(
    search: Search, found: Sequence[Ladder], useful: Sequence[int]
) -> dict[int, tuple[int, ...]]:
    """Place of each branch -> the places of the groups that leave with it.

    Of branches inside of others, and of those that share a group, the first has it.
    """
    places = {found[n].group.name: place for place, n in enumerate(useful)}
    inside: dict[int, tuple[int, ...]] = {}
    taken: set[int] = set()
    for branch in search.structure.branches if any(n.startswith(BRANCH) for n in places) else ():
        if branch.name in places:
            own = {places[name] for name in branch.groups if name in places} - taken
            taken |= own
            inside[places[branch.name]] = tuple(sorted(own))
    return inside


def _scaled(ladder: Ladder, scale: Callable[[Ladder], np.ndarray]) -> np.ndarray:
    """The scores of a ladder; the loss of a branch is compared as it is."""
    return ladder.scores if ladder.group.name.startswith(BRANCH) else scale(ladder)


def _even(space: Space, last: Levels) -> Levels:
    """The same share of the way down for all: as little as keeps the budgets."""
    low, high = 0, 64
    while high - low > 1:
        middle = (low + high) // 2
        if space.holds(tuple(-(-level * middle // 64) for level in last)):
            high = middle
        else:
            low = middle
    return tuple(-(-level * high // 64) for level in last)


def _spread(count: int) -> list[int]:
    """Rungs evenly over a ladder, its ends among them."""
    return np.unique(np.linspace(0, count - 1, min(count, LEVELS)).round().astype(int)).tolist()


def _near(rung: int, count: int) -> list[int]:
    """All rungs about as far around one as the next of ``_spread``; the ends among them."""
    reach = -(-count // LEVELS)
    around = range(max(0, rung - reach), min(count, rung + reach + 1))
    return sorted({*around, count - 1})


def _with(rungs: list[int], useful: Sequence[int], at: Sequence[int]) -> list[int]:
    result = list(rungs)
    for number, rung in zip(useful, at, strict=True):
        result[number] = rung
    return result

"""Multiple-choice knapsack by dynamic programming: one level of each group, least error in all.

All budgets are solved at once: the answer is every choice that no other one beats in both cost
and error. Costs are added as they are, so a budget holds exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STATES = 20_000  # choices kept after each group; more are thinned, evenly over their costs
INTERVALS = 20_000  # of cost, at most, in which choices are compared before they are sorted


@dataclass(frozen=True, eq=False)
class Front:
    """Choices that no other one beats, from the cheapest to the one of least error.

    costs:  float64 [n], rising. errors: float64 [n], falling.
    levels: int [n, groups], the level of each group.
    """

    costs: np.ndarray
    errors: np.ndarray
    levels: np.ndarray

    def best(self, limit: float) -> int:
        """The choice of least error that costs at most ``limit``; -1 where there is none."""
        return int(np.searchsorted(self.costs, limit, side="right")) - 1


def front(
    costs: Sequence[np.ndarray],
    errors: Sequence[np.ndarray],
    limit: float = np.inf,
    states: int = STATES,
) -> Front:
    """The front of choosing one entry of each table.

    costs, errors: for each group float64 [levels]. limit: choices beyond it are left out.
    Exact as long as no more than ``states`` choices are left after a group; beyond that the one
    of least error is kept in each of as many even intervals of cost, and the cheapest of all.
    """
    least = np.cumsum([0.0, *(float(c.min()) for c in reversed(costs))])[::-1][1:]
    cost, error = np.zeros(1), np.zeros(1)
    steps: list[tuple[np.ndarray, np.ndarray]] = []
    for c, e, rest in zip(costs, errors, least, strict=True):
        added = (cost[:, None] + c).reshape(-1)
        summed = (error[:, None] + e).reshape(-1)
        fits = _unbeaten(added, summed, np.flatnonzero(added + rest <= limit))
        order = fits[np.lexsort((summed[fits], added[fits]))]
        order = order[_falling(summed[order])]
        order = order[_thinned(added[order], states)]
        cost, error = added[order], summed[order]
        steps.append((order // len(c), order % len(c)))
    levels = np.empty((len(cost), len(costs)), np.int64)
    place = np.arange(len(cost))
    for group in range(len(costs) - 1, -1, -1):
        before, level = steps[group]
        levels[:, group] = level[place]
        place = before[place]
    return Front(cost, error, levels)


def _unbeaten(costs: np.ndarray, errors: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Places without most of those that others beat: sorting the rest takes far less time.

    One goes where another in a cheaper interval of costs has no larger error. What is left has
    the same front, in the same order.
    """
    if not len(places):
        return places
    cost, error = costs[places], errors[places]
    low, width = cost.min(), cost.max() - cost.min()
    if not 0 < width < np.inf:
        return places
    intervals = min(INTERVALS, len(places))
    number = ((cost - low) / width * intervals).astype(np.int64)
    least = np.full(intervals + 1, np.inf)
    np.minimum.at(least, number, error)
    cheaper = np.minimum.accumulate(least)[number - 1]
    return places[(number == 0) | (error < cheaper)]


def _falling(errors: np.ndarray) -> np.ndarray:
    """bool [n]: below all that come before."""
    best = np.minimum.accumulate(errors)
    return np.concatenate([np.ones(min(1, len(errors)), bool), errors[1:] < best[:-1]])


def _thinned(costs: np.ndarray, states: int) -> np.ndarray:
    """Places of at most about ``states`` choices whose costs rise and errors fall."""
    if len(costs) <= states:
        return np.arange(len(costs))
    bucket = ((costs - costs[0]) * (states / (costs[-1] - costs[0]))).astype(np.int64)
    last = np.flatnonzero(np.append(bucket[1:] != bucket[:-1], True))
    return last if last[0] == 0 else np.concatenate([[0], last])

"""Levels of all groups at the least error that budgets allow.

What a level costs depends on the levels of the groups around it: a layer costs its inputs times
its outputs. So the costs are made linear around a choice, solved exactly, and the answer, as far
as its true cost allows, is the next choice; then single levels are exchanged at true costs. Where
costs add up by themselves the first answer is the optimum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product

import numpy as np

from secateur.planning.knapsack import front

ROUNDS = 12
STATES = 400  # choices of the groups of one branch that are kept beside its leaving whole
Levels = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Space:
    """What may be chosen, and what it costs.

    errors: for each group float64 [levels], the level 0 being nothing removed.
    cost:   levels -> float64 [budgets], each divided by its limit: a choice holds up to 1.
    inside: group of two levels, whose second takes whole groups away -> these groups. Their levels
            say nothing then, and their errors are nothing.
    """

    errors: Sequence[np.ndarray]
    cost: Callable[[Levels], np.ndarray]
    inside: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def error(self, levels: Levels) -> float:
        """Of a choice, the sum of its groups."""
        levels = self.settled(levels)
        return float(sum(e[level] for e, level in zip(self.errors, levels, strict=True)))

    def settled(self, levels: Levels) -> Levels:
        """With nothing removed from groups that leave whole."""
        gone = {inner for group, own in self.inside.items() if levels[group] for inner in own}
        if not gone:
            return levels
        return tuple(0 if n in gone else level for n, level in enumerate(levels))

    def holds(self, levels: Levels) -> bool:
        """Whether a choice keeps all budgets."""
        return bool((self.cost(levels) <= 1).all())


def allocate(space: Space, starts: Sequence[Levels]) -> Levels:
    """The best choice found; at least as good as every start that keeps the budgets.

    starts: choices to make the costs linear around; the first must keep the budgets.
    """
    memory: dict[Levels, np.ndarray] = {}

    def cost(levels: Levels) -> np.ndarray:
        levels = space.settled(levels)
        if levels not in memory:
            memory[levels] = space.cost(levels)
        return memory[levels]

    known = Space(space.errors, cost, space.inside)
    best = min((s for s in starts if known.holds(s)), key=known.error)
    for start, weights in product(starts, _weights(len(cost(best)))):
        best = min(best, _linearised(known, start, weights), key=known.error)
    return known.settled(_exchanged(known, best))


def _weights(budgets: int) -> list[np.ndarray]:
    """How several budgets are made one: each by itself, and all alike."""
    if budgets == 1:
        return [np.ones(1)]
    return [*np.eye(budgets), np.full(budgets, 1 / budgets)]


def _linearised(space: Space, start: Levels, weights: np.ndarray) -> Levels:
    """Solve around a choice, go there, until it is where we are."""
    best, at = start, start
    seen: set[Levels] = set()
    for _ in range(ROUNDS):
        if at in seen:
            break
        seen.add(at)
        options = [_options(space, at, group, weights) for group in _free(space, at)]
        found = front([o.costs for o in options], [o.errors for o in options])
        at = _furthest(space, partial(_chosen, options), found.levels)
        if not space.holds(best) or (space.holds(at) and space.error(at) < space.error(best)):
            best = at
    return best


@dataclass(frozen=True, eq=False)
class _Options:
    """What some groups may become together: float64 [n] costs and errors, int [n, groups]."""

    groups: tuple[int, ...]
    costs: np.ndarray
    errors: np.ndarray
    levels: np.ndarray


def _free(space: Space, at: Levels) -> list[int]:
    """All groups that are not chosen together with the one that takes them away."""
    inner = {group for inside in space.inside.values() for group in inside}
    return [group for group in range(len(at)) if group not in inner]


def _options(space: Space, at: Levels, group: int, weights: np.ndarray) -> _Options:
    if group not in space.inside:
        table, errors = _table(space, at, group) @ weights, space.errors[group]
        return _Options((group,), table, errors, np.arange(len(errors))[:, None])
    inside = space.inside[group]
    stays = (*at[:group], 0, *at[group + 1 :])
    goes = (*at[:group], 1, *at[group + 1 :])
    found = front(
        [_table(space, stays, inner) @ weights for inner in inside],
        [space.errors[inner] for inner in inside],
        states=STATES,
    )
    base = float(space.cost(stays) @ weights)
    here, away = (float(space.cost(levels) @ weights) for levels in (at, goes))
    nothing = np.zeros(len(inside) + 1, np.int64)
    nothing[0] = 1
    levels = np.column_stack([np.zeros(len(found.costs), np.int64), found.levels])
    return _Options(
        (group, *inside),
        np.append(found.costs + base, away) - here,
        np.append(found.errors + space.errors[group][0], space.errors[group][1]),
        np.vstack([levels, nothing]),
    )


def _chosen(options: Sequence[_Options], row: np.ndarray) -> Levels:
    result: dict[int, int] = {}
    for option, place in zip(options, row, strict=True):
        result |= zip(option.groups, option.levels[place].tolist(), strict=True)
    return tuple(result[group] for group in range(len(result)))


def _table(space: Space, at: Levels, group: int) -> np.ndarray:
    """float64 [levels, budgets]: the change of cost when one group alone moves."""
    here = space.cost(at)
    return np.array([
        space.cost((*at[:group], level, *at[group + 1 :])) - here
        for level in range(len(space.errors[group]))
    ])  # fmt: skip


def _furthest(space: Space, chosen: Callable[[np.ndarray], Levels], rows: np.ndarray) -> Levels:
    """The last of a front that keeps the budgets; costs rise along it but for small waves.

    chosen: a row of the front -> the choice that it stands for.
    """
    low, high = 0, len(rows)  # rows[low] holds, as far as any does
    while high - low > 1:
        middle = (low + high) // 2
        if space.holds(chosen(rows[middle])):
            low = middle
        else:
            high = middle
    return chosen(rows[low])


def _exchanged(space: Space, at: Levels) -> Levels:
    """Give levels back where they fit; let one group give for another while the error falls."""
    while True:
        error = space.error(at)
        moves = [_moved(space, at, group, step) for group in range(len(at)) for step in (-1, 1)]
        single = [m for m in moves if m is not None]
        better = [m for m in single if space.error(m) < error and space.holds(m)]
        if not better:
            better = _pairs(space, at, error)
        if not better:
            return at
        at = min(better, key=space.error)


def _pairs(space: Space, at: Levels, error: float) -> list[Levels]:
    """The first few exchanges of two groups, of the largest gain, that keep the budgets."""
    trials: list[tuple[float, Levels]] = []
    for up, down in product(range(len(at)), repeat=2):
        raised = _moved(space, at, up, -1) if up != down else None
        for step in (1, 2):
            both = None if raised is None else _moved(space, raised, down, step)
            if both is not None and space.error(both) < error:
                trials.append((space.error(both), both))
    for _, levels in sorted(trials)[:512]:
        if space.holds(levels):
            return [levels]
    return []


def _moved(space: Space, at: Levels, group: int, step: int) -> Levels | None:
    level = at[group] + step
    if not 0 <= level < len(space.errors[group]):
        return None
    return (*at[:group], level, *at[group + 1 :])

"""A limit is moved until what was chosen under it is measured just below a target."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from secateur.errors import BudgetError

AIM, CLOSE, UNDER = 0.962, 0.945, 0.975  # of the target: where to aim, and what is near enough
TRIES, NEAREST = 10, 3
STEPS = (0.0, *(sign * percent / 100 for percent in (1, 2, 3, 4, 6, 8) for sign in (1, -1)))
Units = Mapping[str, Sequence[int]]


def tuned(
    choose: Callable[[float], Units],
    ratio: Callable[[Units], float],
    share: float,
    start: float | None = None,
    tell: Callable[[int, float, float], None] = lambda number, limit, found: None,
    wanted: str = "",
) -> tuple[dict[str, tuple[int, ...]], float]:
    """The choice whose measured ratio lies just below a share, and the limit that gave it.

    choose: limit, as a share of the predicted latency -> what leaves. Choices miss what was
    predicted by some percent, each by its own, so the next limit goes by what those nearest to the
    aim missed, and where it gives a choice that was measured, a limit beside it is taken. After
    ``TRIES``, or twice as many where none holds the target, the largest ratio up to ``UNDER`` of it
    is taken. Where all that hold it lie above, the smallest: at the end the model is timed anew,
    and sessions differ by about as much as such a ratio leaves.
    wanted: the target as the user wrote it, for messages; the share by default.
    Errors: BudgetError where no choice holds the target.
    """
    aim = AIM * share
    limit = min(1.0, start if start is not None else aim)
    tried: list[_Try] = []
    failure: BudgetError | None = None
    while len(tried) < (TRIES if any(one.ratio <= share for one in tried) else 2 * TRIES):
        found, failure = _unseen(choose, limit, tried)
        if found is None:
            break
        chosen, limit = found
        tried.append(_Try(limit, ratio(chosen), chosen))
        tell(len(tried), limit, tried[-1].ratio)
        if CLOSE * share <= tried[-1].ratio <= UNDER * share:
            break
        near = sorted(tried, key=lambda one: abs(math.log(one.ratio / aim)))[:NEAREST]
        missed = statistics.median(one.ratio / one.limit for one in near)
        limit = min(1.0, limit * min(1.5, max(0.6, aim / missed / limit)))
    holding = [one for one in tried if one.ratio <= share]
    if not holding:
        raise BudgetError(
            f"latency of {wanted or f'{share:.3g}x'} cannot be reached: {_least(tried, failure)}"
        ) from failure
    roomy = [one for one in holding if one.ratio <= UNDER * share]
    taken = max(roomy, key=lambda one: one.ratio) if roomy else min(holding, key=lambda o: o.ratio)
    return taken.remove, taken.limit


def _least(tried: Sequence[_Try], failure: BudgetError | None) -> str:
    """What came nearest, as it was measured, or else predicted. The limits that the choices were
    given are nobody's target, and so not told."""
    rules = "; raise the target, or loosen the rules in 'pruning' that hold widths"
    if tried:
        return f"the least that was measured is {min(one.ratio for one in tried):.3f}x{rules}"
    predicted = failure.smallest.get("latency") if failure else None
    if predicted is not None:
        return f"the least that is predicted is {predicted:.3f}x{rules}"
    return str(failure)


@dataclass(frozen=True)
class _Try:
    """A choice that was measured, and the limit that gave it."""

    limit: float
    ratio: float
    remove: dict[str, tuple[int, ...]]


def _unseen(
    choose: Callable[[float], Units], limit: float, tried: Sequence[_Try]
) -> tuple[tuple[dict[str, tuple[int, ...]], float] | None, BudgetError | None]:
    """The first choice of the limits around one that was not measured yet, with its limit; and why
    limits gave none."""
    seen, failure = [one.remove for one in tried], None
    for step in STEPS:
        beside = min(1.0, limit * (1 + step))
        try:
            chosen = {name: tuple(units) for name, units in choose(beside).items()}
        except BudgetError as error:
            failure = error
            continue
        if chosen not in seen:
            return (chosen, beside), failure
    return None, failure

"""As few steps down the ladders as the budgets ask for, in an order that a policy gives."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from secateur.errors import BudgetError
from secateur.planning import StructureLike
from secateur.planning.fitting import CostLike
from secateur.policies._ladder import Ladder, ladders
from secateur.policies._request import Request
from secateur.quantities import Quantity, format_bytes, format_count, format_seconds
from secateur.structure.groups import BRANCH

Thresholds = Callable[[Ladder], np.ndarray]
Rungs = Sequence[int]
Step = tuple[float, float, int, int]  # threshold, share of the group that is gone, ladder, rung


def descend(
    scores: Mapping[str, torch.Tensor],
    structure: StructureLike,
    request: Request,
    thresholds: Thresholds,
    refill: bool = True,
) -> dict[str, tuple[int, ...]]:
    """Take steps in rising order of their threshold until all budgets hold; give back what fits.

    thresholds: ladder -> float [units], rising: entry u is the value of the policy's one knob at
                which the first u + 1 units of the ladder's order leave.
    refill:     give a group back as many steps as still fit; at most one where False.
    Raises BudgetError with the smallest cost in reach; InputError as ``ladders`` does.
    """
    units = {name: score for name, score in scores.items() if not name.startswith(BRANCH)}
    search = Search(structure, request, ladders(units, structure, request))
    return search.removal(search.chosen(thresholds, refill))


class Search:
    """Rungs of all ladders, what they cost, and which of them keep the budgets."""

    def __init__(self, structure: StructureLike, request: Request, found: Sequence[Ladder]) -> None:
        self.structure = structure
        self.request = request
        self.ladders = found
        self.dense = structure.cost({})
        self.limits = {
            kind: budget.resolve(getattr(self.dense, kind))
            for kind, budget in request.budgets.items()
        }

    def removal(self, rungs: Rungs) -> dict[str, tuple[int, ...]]:
        pairs = zip(self.ladders, rungs, strict=True)
        units = {ladder.group.name: ladder.units(rung) for ladder, rung in pairs}
        return {name: removed for name, removed in units.items() if removed}

    def cost(self, rungs: Rungs) -> CostLike:
        gone = {x.group.name: x.gone(r) for x, r in zip(self.ladders, rungs, strict=True)}
        return self.structure.cost({name: units for name, units in gone.items() if len(units)})

    def holds(self, rungs: Rungs) -> bool:
        cost = self.cost(rungs)
        return all(getattr(cost, kind) <= limit for kind, limit in self.limits.items())

    def chosen(self, thresholds: Thresholds, refill: bool) -> list[int]:
        useful = self.useful()
        at = {number: thresholds(self.ladders[number]) for number in useful}
        # Of equal thresholds the one that cuts a smaller share comes first: ties are cut evenly.
        steps = sorted(
            (float(at[number][count - 1]), count / ladder.group.size, number, rung)
            for number, ladder in ((n, self.ladders[n]) for n in useful)
            for rung, count in enumerate(ladder.counts)
            if rung
        )
        if not self.holds(self.after(steps)):
            raise self.refusal(self.cost(self.after(steps)))
        low, high = -1, len(steps)  # fewest steps that hold: in (low, high]
        while high - low > 1:
            middle = (low + high) // 2
            if self.holds(self.after(steps[:middle])):
                high = middle
            else:
                low = middle
        return self.refilled(self.after(steps[:high]), at, refill)

    def useful(self) -> list[int]:
        """Ladders whose way down lowers something that is budgeted."""
        start = self.after([])
        cost = self.cost(start)
        found = []
        for number, ladder in enumerate(self.ladders):
            if len(ladder.counts) > 1:
                lower = self.cost(_moved(start, number, len(ladder.counts) - 1))
                if any(getattr(lower, kind) < getattr(cost, kind) for kind in self.limits):
                    found.append(number)
        return found

    def after(self, steps: Sequence[Step]) -> list[int]:
        rungs = [0] * len(self.ladders)
        for _, _, number, rung in steps:
            rungs[number] = rung
        return rungs

    def refilled(self, rungs: list[int], at: Mapping[int, np.ndarray], refill: bool) -> list[int]:
        """Steps taken back, the most valuable first, while the budgets hold.

        A step that does not fit never fits later: what is given back only raises the cost.
        """

        def entry(number: int) -> tuple[float, int]:
            return -float(at[number][self.ladders[number].counts[rungs[number]] - 1]), number

        waiting = [entry(number) for number, rung in enumerate(rungs) if rung]
        heapq.heapify(waiting)
        while waiting:
            _, number = heapq.heappop(waiting)
            trial = _moved(rungs, number, rungs[number] - 1)
            if self.holds(trial):
                rungs[number] = trial[number]
                if refill and rungs[number]:
                    heapq.heappush(waiting, entry(number))
        return rungs

    def refusal(self, smallest: CostLike) -> BudgetError:
        """What to raise where even the smallest cost is above a limit."""
        least = {kind: getattr(smallest, kind) for kind in self.limits}
        out = {kind: cost for kind, cost in least.items() if cost > self.limits[kind]}
        shares = {kind: cost / getattr(self.dense, kind) for kind, cost in out.items()}
        return BudgetError(self.out_of_reach(smallest), shares)

    def out_of_reach(self, smallest: CostLike) -> str:
        parts = []
        for kind, limit in self.limits.items():
            least, dense = getattr(smallest, kind), getattr(self.dense, kind)
            written = {"bytes": format_bytes, "latency": format_seconds}.get(kind, format_count)
            if least > limit:
                parts.append(
                    f"{kind} {_shown(self.request.budgets[kind])} ({written(limit)}) cannot be "
                    f"reached: the smallest reachable is {_rounded_up(least / dense)} "
                    f"({written(least)} of {written(dense)})"
                )
        request = self.request
        rules = [f"round_to={request.round_to}", f"floor={request.floor}"]
        rules += [f"share={request.share:g}"] * bool(request.share)
        held = len(request.kept) + len(request.ratios)
        rules += [f"{held} groups held by layer rules"] * bool(held)
        return (
            f"{'; '.join(parts)} under {', '.join(rules)}; "
            "raise the budget, or loosen the rules that hold it"
        )


def _shown(budget: Quantity) -> str:
    """A limit that was moved has more digits than anybody reads."""
    return f"{budget.value:.4g}x" if budget.unit == "fraction" else str(budget)


def _rounded_up(share: float) -> str:
    """Percent, so that a budget of what it says can be reached."""
    return f"{math.ceil(share * 10_000 - 1e-9) / 100:g}%"


def _moved(rungs: Rungs, number: int, rung: int) -> list[int]:
    return [*rungs[:number], rung, *rungs[number + 1 :]]

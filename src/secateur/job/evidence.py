"""What reports say of a choice of widths: losses of all levels, other budgets, layers solved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from secateur.choosing import Judged
from secateur.errors import BudgetError
from secateur.planning import StructureLike
from secateur.policies import POLICIES
from secateur.quantities import Quantity
from secateur.refining import Units
from secateur.repair.solver import Solved

POINTS = 24  # of a curve
FRONT = (0.9, 0.75, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)  # shares of the dense cost
SECONDS = 10.0  # for the front


def evidence(
    structure: StructureLike, judged: Judged, scope: str, remove: Units, solved: Sequence[Solved]
) -> dict[str, Any]:
    """Plain values: curves of all groups, a front, and the error of each layer that was solved.

    A front ends where the floors do, or when it takes too long.
    """
    return {
        "curves": _curves(structure, judged, remove),
        "front": _front(structure, judged, scope),
        "solved": [
            {"layer": one.weight.removesuffix(".weight"), "before": one.before, "after": one.after}
            for one in solved
        ],
    }


def _curves(structure: StructureLike, judged: Judged, remove: Units) -> list[dict[str, Any]]:
    """Of all groups but those that left with a whole branch."""
    whole = [b for b in structure.branches if b.name in remove]
    inside = {name for branch in whole for name in branch.groups}
    found = []
    for name, scores in judged.scores.items():
        if name in inside:
            continue
        sums = np.concatenate([[0.0], np.cumsum(np.sort(scores.double().numpy()))])
        at = np.unique(np.linspace(0, len(scores), POINTS).round().astype(int))
        gone = len(remove.get(name, ()))
        found.append({
            "group": name, "units": len(scores), "removed": gone, "loss": float(sums[gone]),
            "levels": at.tolist(), "losses": sums[at].tolist(),
        })  # fmt: skip
    return found


def _front(structure: StructureLike, judged: Judged, scope: str) -> list[dict[str, float]]:
    """For the first of the budgets."""
    kind = next(iter(judged.request.budgets), None)
    if kind is None or judged.request.removed:
        return []
    dense = float(getattr(structure.cost({}), kind))
    points: list[dict[str, float]] = []
    started = time.perf_counter()
    for share in FRONT:
        request = replace(judged.request, budgets={kind: Quantity(share, "fraction")})
        try:
            remove = POLICIES.get(scope)(judged.scores, structure, request)
        except BudgetError:
            break
        loss = sum(float(judged.scores[n][list(u)].double().sum()) for n, u in remove.items())
        left = float(getattr(structure.cost(remove), kind)) / (dense or 1.0)
        points.append({"left": left, "loss": loss})
        if time.perf_counter() - started > SECONDS:
            break
    return points

"""``plan``: from scores to a plan that holds the budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice
from types import MappingProxyType
from typing import Any

from torch import nn

from secateur.config import UNBUDGETED
from secateur.errors import InputError
from secateur.judging import Judged, count_classes, judge_next, score, statistics_of
from secateur.planning import PruningPlan, StructureLike, describe
from secateur.policies import POLICIES, Request
from secateur.policies._rules import Rule, resolve
from secateur.predicting import Latency
from secateur.protocols import FROM_NOTHING, LABELLED, Criterion, Data, Statistics
from secateur.requesting import Amount, judge_of, normaliser_of, request_of, tensor_bytes
from secateur.structure.structure import Structure
from secateur.training.loading import batches
from secateur.training.losses import Loss

__all__ = ["Judged", "choose", "count_classes", "judge_next", "plan", "score"]

Batches = Iterable[tuple[Any, Any]]

HALF: Mapping[str, Amount] = MappingProxyType({"flops": "0.5x"})
BATCH_SIZE, BATCHES = 64, 8  # taken of ``Data`` for a criterion that needs data


def plan(
    model: nn.Module,
    structure: Structure,
    criterion: str | Criterion = "l2",
    budget: Mapping[str, Amount] = HALF,
    scope: str = "global",
    data: Data | Batches | None = None,
    loss: Loss | None = None,
    round_to: int = 1,
    floor: int | float = 1,
    layers: Mapping[str, Rule] | None = None,
    seed: int = 0,
    normalise: str | None = None,
    latency: Latency | None = None,
    branches: bool = False,
    threshold: float | None = None,
    reduction: str | None = None,
) -> PruningPlan:
    """The plan that removes the units worth least, as few as the budget asks for.

    structure: of this model, from ``trace``. The model is left as it is.
    criterion: what a unit is worth: a name (``secateur.criteria``) or a criterion of your own.
    budget:    ``flops``, ``params``, ``bytes`` (of the file that ``save`` writes) and ``latency``
               -> at most this much; all that are given hold. A fraction of dense (0.5, "0.5x",
               "50%"), a count ("300M"), a size ("20MB") or a time ("12ms"). May be empty where
               ``layers`` gives ratios.
    scope:     ``global``, ``local``, ``uniform``, ``isomorphic`` or ``knapsack``: how the cut is
               spread over the groups; or, without a budget, ``threshold`` (what scores at most so
               much leaves), ``energy`` (what holds so much of the squared scores stays) or
               ``natural-break``.
    data:      (inputs, targets) batches, or ``Data``, of whose train split a random 8 batches of
               64 are read; for criteria that need some (``secateur criteria``).
    loss:      (outputs, targets) -> scalar; cross-entropy or mean squared error by default.
    round_to:  widths become multiples of this; a group that loses nothing may keep any width.
    floor:     least units that stay in a group: a whole number, or a share of it such as 0.1.
    layers:    pattern -> "keep", a share that leaves, or True; see ``policies/_rules.py``.
    seed:      of random scores and of the calibration samples.
    normalise: how ``global`` compares groups: mean (default), max, sum, size or none.
    latency:   from ``secateur.latency``, for a budget of it: predicted seconds hold the budget.
    branches:  whether what is added to a skip path may leave whole, with the criterion ``obs`` and
               the scope ``knapsack``; ``apply`` then returns a graph.
    threshold: of the scopes ``threshold`` and ``energy``; see ``secateur.policies``.
    reduction: how a criterion of single weights goes from the members of a group to its units: sum,
               mean, max, product, first (producer) or producers; its own where it is left out.
    Errors: BudgetError with the smallest cost in reach; InputError for values that cannot be
    used; PlanMismatch where the structure is of another model.
    """
    judge = judge_of(criterion, reduction)
    reads = bool(judge.needs - FROM_NOTHING)
    if reads and data is None:
        what = "labelled samples" if judge.needs & LABELLED else "calibration inputs"
        what = "gradients" if "gradients" in judge.needs else what
        raise InputError(
            f"the criterion {_name(criterion)!r} needs data for its {what}, and none was "
            "given; give data=... of (inputs, targets) batches, or take the criterion 'l2'"
        )
    given = _batches(data, seed) if reads else None
    statistics = statistics_of(judge, model, structure, given, loss, seed, branches)
    rules = resolve(layers or {}, structure, model)
    scale = normalise or normaliser_of(judge, scope)
    if scope in UNBUDGETED and budget is HALF:
        budget = {}
    request = request_of(
        tensor_bytes(budget, structure, model), round_to, floor, rules, scale, scope, threshold
    )
    if "latency" in request.budgets and latency is None:
        raise InputError(
            "a budget of latency needs the times of this machine: give latency=secateur.latency("
            "model, structure, example_inputs), or the target to secateur.compress"
        )
    costs: StructureLike = structure
    if latency is not None:
        costs = latency.timed(structure)
        if round_to == 1:
            request = replace(request, grains=latency.grains(structure))
    remove = choose(judge, structure, statistics, request, scope, costs)
    why: dict[str, Any] = {
        "criterion": _name(criterion),
        "scope": scope,
        "budget": {kind: str(amount) for kind, amount in request.budgets.items()},
        "round_to": round_to,
        "floor": floor,
        "layers": dict(layers or {}),
        "seed": seed,
        "normalise": request.normalise,
        **({"reduction": reduction} if reduction else {}),
    }
    if threshold is not None:
        why["threshold"] = threshold
    if scope == "natural-break":
        held = (*remove, *rules.kept)
        why["no_break"] = [group.name for group in structure.groups if group.name not in held]
    return describe(structure, remove, type(model).__name__, why)


def choose(
    criterion: Criterion,
    structure: Structure,
    statistics: Statistics,
    request: Request,
    scope: str,
    costs: StructureLike | None = None,
) -> dict[str, tuple[int, ...]]:
    """Group name -> removed units: the policy's answer to the criterion's scores.

    costs: the structure with further costs, such as latency, where there are budgets of them.
    Errors: BudgetError and InputError, as ``plan``.
    """
    scores = score(criterion, structure, statistics, request.kept)
    return POLICIES.get(scope)(scores, costs or structure, request)


def _batches(data: Data | Batches | None, seed: int) -> Batches | None:
    if isinstance(data, Data):
        return islice(batches(data.train, BATCH_SIZE, seed), BATCHES)
    return data


def _name(criterion: str | Criterion) -> str:
    return criterion if isinstance(criterion, str) else type(criterion).__name__

"""``plan``: from scores to a plan that holds the budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from secateur.config import UNBUDGETED
from secateur.errors import InputError
from secateur.planning import PruningPlan, StructureLike, describe
from secateur.policies import POLICIES, Request
from secateur.policies._rules import Rule, resolve
from secateur.predicting import Latency
from secateur.protocols import Criterion, Data, Statistics
from secateur.repair.streaming import fitting
from secateur.repair.tracing import traces, unit_losses
from secateur.requesting import (
    Amount,
    judge_of,
    normaliser_of,
    request_for,
    request_of,
    tensor_bytes,
)
from secateur.structure.groups import BRANCH
from secateur.structure.inputs import ExampleInputs
from secateur.structure.structure import Removal, Structure, trace
from secateur.surgery.embedding import embed
from secateur.training.loading import batches, forward
from secateur.training.losses import Loss, class_dimension, default_loss, is_classes, logits_of
from secateur.training.statistics import collect

Batches = Iterable[tuple[Any, Any]]

HALF: Mapping[str, Amount] = MappingProxyType({"flops": "0.5x"})
LOSSES = frozenset({"losses"})
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
               64 are read; for criteria that need gradients.
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
    Errors: BudgetError with the smallest cost in reach; InputError for values that cannot be
    used; PlanMismatch where the structure is of another model.
    """
    judge = judge_of(criterion)
    if judge.needs and data is None:
        what = "gradients" if "gradients" in judge.needs else "calibration inputs"
        raise InputError(
            f"the criterion {_name(criterion)!r} needs data for its {what}, and none was "
            "given; give data=... of (inputs, targets) batches, or take the criterion 'l2'"
        )
    generator = torch.Generator().manual_seed(_seed(seed))
    given = _batches(data, seed) if judge.needs else None
    if "losses" in judge.needs:
        given = list(given or ())
    statistics = collect(
        model, structure, given, loss or default_loss, judge.needs - LOSSES, generator
    )
    if "losses" in judge.needs:
        losses = _losses(model, structure, {}, given, seed, branches)
        statistics = replace(statistics, losses=losses)
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


@dataclass(frozen=True, eq=False)
class Judged:
    """What a policy needs: scores of the units, and what is asked for."""

    scores: Mapping[str, torch.Tensor]
    request: Request


def judge_next(
    pruned: nn.Module,
    dense: nn.Module,
    structure: Structure,
    removed: Mapping[str, Sequence[int]],
    example_inputs: ExampleInputs,
    *,
    criterion: str | Criterion,
    budget: Mapping[str, Amount],
    data: Batches | None,
    round_to: int,
    floor: int,
    min_share: float,
    layers: Mapping[str, Rule],
    seed: int,
    normalise: str | None,
    branches: bool = False,
    scope: str = "",
    threshold: float | None = None,
) -> Judged:
    """Scores on the model as it is now, after ``removed`` has left it.

    structure and dense: of the dense model; ``pruned``: what is left of it after ``removed``.
    branches: whether whole ones are judged as well, by a criterion that needs losses.
    Statistics are collected on ``pruned`` and put among zeros, so that all numbers stay dense.
    Errors: InputError, as ``plan``.
    """
    judge = judge_of(criterion)
    alone = judge.needs == LOSSES  # nothing that lives on the pruned model alone
    plain = alone or not removed
    place = structure if plain else trace(pruned, example_inputs, part=structure.part)
    generator = torch.Generator().manual_seed(_seed(seed))
    if "losses" in judge.needs:
        data = list(data or ())
    found = collect(
        dense if alone else pruned, place, data if judge.needs else None, default_loss,
        judge.needs - LOSSES, generator,
    )  # fmt: skip
    losses = {}
    if "losses" in judge.needs:
        losses = _losses(dense, structure, removed, data, seed, branches)
    tensors = found.tensors if plain else embed(structure, removed, found.tensors)
    counts = {len(each) for each in found.gradients.values()}
    slots = [
        embed(structure, removed, {name: each[slot] for name, each in found.gradients.items()})
        for slot in range(counts.pop() if counts else 0)
    ]
    gradients = {name: [slot[name] for slot in slots] for name in (slots[0] if slots else {})}
    request = request_for(
        structure, dense, budget, round_to=round_to, floor=floor, min_share=min_share,
        layers=layers, criterion=judge, normalise=normalise, scope=scope, threshold=threshold,
    )  # fmt: skip
    request = replace(request, removed=removed)
    statistics = Statistics(tensors, gradients, generator, losses)
    return Judged(score(judge, structure, statistics, request.kept), request)


def _losses(
    model: nn.Module,
    structure: Structure,
    removed: Removal,
    data: Batches | None,
    seed: int,
    branches: bool,
) -> dict[str, torch.Tensor]:
    """Of every group, as the criterion ``obs`` reads them. Errors: InputError without a batch."""
    batches = list(data or ())
    classes = count_classes(model, batches[0]) if batches and not structure.part else None
    left = [b for b in structure.branches if b.name not in removed] if branches else []
    found, whole = traces(
        model, structure, fitting(model, structure, [inputs for inputs, _ in batches]),
        removed=removed, classes=classes, seed=seed, branches=left,
    )  # fmt: skip
    units = {name: unit_losses(trace) for name, trace in found.items()}
    return units | {n: torch.tensor([loss], dtype=torch.float64) for n, loss in whole.items()}


def count_classes(model: nn.Module, batch: tuple[Any, Any]) -> int | None:
    """How many classes the answers have; None where the targets are not classes."""
    inputs, targets = batch
    if not isinstance(targets, torch.Tensor) or not is_classes(targets):
        return None
    with torch.no_grad():
        logits = logits_of(forward(model, inputs))
    return logits.shape[class_dimension(logits, targets)]


def score(
    criterion: Criterion,
    structure: Structure,
    statistics: Statistics,
    kept: frozenset[str] = frozenset(),
) -> dict[str, torch.Tensor]:
    """The scores of all groups but ``kept``, in the structure's order: float [units] each.

    Where statistics have losses of branches these come after, as they are.

    Raises InputError where the criterion cannot score a group.
    """
    found = {
        group.name: criterion(group, statistics)
        for group in structure.groups
        if group.name not in kept
    }
    whole = {name: loss for name, loss in statistics.losses.items() if name.startswith(BRANCH)}
    return found | {name: loss for name, loss in whole.items() if name not in kept}


def _batches(data: Data | Batches | None, seed: int) -> Batches | None:
    if isinstance(data, Data):
        return islice(batches(data.train, BATCH_SIZE, seed), BATCHES)
    return data


def _seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed is {seed!r}; give a whole number from 0 up")
    return seed


def _name(criterion: str | Criterion) -> str:
    return criterion if isinstance(criterion, str) else type(criterion).__name__

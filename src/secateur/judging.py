"""What units are worth: statistics collected, and a criterion's scores of every group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from secateur.errors import InputError
from secateur.policies import Request
from secateur.policies._rules import Rule
from secateur.protocols import FROM_NOTHING, Criterion, Statistics
from secateur.repair.streaming import fitting
from secateur.repair.tracing import traces, unit_losses
from secateur.requesting import Amount, judge_of, request_for
from secateur.structure.groups import BRANCH
from secateur.structure.inputs import ExampleInputs
from secateur.structure.structure import Removal, Structure, trace
from secateur.surgery.embedding import embed
from secateur.surgery.matching import spread
from secateur.training.loading import forward
from secateur.training.losses import Loss, default_loss, found_dimension, is_classes, logits_of
from secateur.training.statistics import collect

Batches = Iterable[tuple[Any, Any]]

LOSSES = frozenset({"losses"})
DENSE = frozenset({"gradients", "losses"})  # statistics that have a form of the dense model


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
    reduction: str | None = None,
    loss: Loss | None = None,
) -> Judged:
    """Scores on the model as it is now, after ``removed`` has left it.

    structure and dense: of the dense model; ``pruned``: what is left of it after ``removed``.
    branches: whether whole ones are judged as well, by a criterion that needs losses.
    Statistics are collected on ``pruned`` and put among zeros, so that all numbers stay dense; or,
    where they have no such form, scores are, of the groups of what is left.
    Errors: InputError, as ``plan``.
    """
    judge = judge_of(criterion, reduction)
    request = request_for(
        structure, dense, budget, round_to=round_to, floor=floor, min_share=min_share,
        layers=layers, criterion=judge, normalise=normalise, scope=scope, threshold=threshold,
    )  # fmt: skip
    request = replace(request, removed=removed)
    alone = judge.needs == LOSSES  # nothing that lives on the pruned model alone
    given = data if judge.needs - FROM_NOTHING else None
    if alone or not removed:
        model = dense if alone else pruned
        statistics = statistics_of(judge, model, structure, given, loss, seed, branches, removed)
        return Judged(score(judge, structure, statistics, request.kept), request)
    place = trace(pruned, example_inputs, part=structure.part)
    if judge.needs - DENSE:
        found = statistics_of(judge, pruned, place, given, loss, seed)
        scores = spread(structure, removed, place, score(judge, place, found))
        return Judged({n: s for n, s in scores.items() if n not in request.kept}, request)
    if "losses" in judge.needs:
        given = list(given or ())
    found = statistics_of(judge, pruned, place, given, loss, seed, losses=False)
    losses = {}
    if "losses" in judge.needs:
        losses = _losses(dense, structure, removed, given, seed, branches)
    counts = {len(each) for each in found.gradients.values()}
    slots = [
        embed(structure, removed, {name: each[slot] for name, each in found.gradients.items()})
        for slot in range(counts.pop() if counts else 0)
    ]
    gradients = {name: [slot[name] for slot in slots] for name in (slots[0] if slots else {})}
    statistics = Statistics(
        embed(structure, removed, found.tensors), gradients, found.generator, losses, found.buffers
    )
    return Judged(score(judge, structure, statistics, request.kept), request)


def statistics_of(
    judge: Criterion,
    model: nn.Module,
    structure: Structure,
    data: Batches | None,
    loss: Loss | None,
    seed: int,
    branches: bool = False,
    removed: Removal | None = None,
    losses: bool = True,
) -> Statistics:
    """What a criterion needs of a model. losses: whether those of ``obs`` are made as well.

    Errors: InputError, as ``plan``.
    """
    generator = torch.Generator().manual_seed(_seed(seed))
    if "losses" in judge.needs:
        data = list(data or ())
    found = collect(model, structure, data, loss or default_loss, judge.needs - LOSSES, generator)
    if "losses" in judge.needs and losses:
        made = _losses(model, structure, removed or {}, data, seed, branches)
        found = replace(found, losses=made)
    return found


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
    dimension = found_dimension(logits, targets)  # a loss of one's own may read other targets
    return None if dimension is None else logits.shape[dimension]


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


def _seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed is {seed!r}; give a whole number from 0 up")
    return seed

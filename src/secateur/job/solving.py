"""Other budgets from the scores that a run kept: no data is read, nothing is scored again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from secateur.config import Recipe
from secateur.errors import BudgetError, InputError
from secateur.job import folders
from secateur.job.evaluating import with_dense_weights
from secateur.job.subjects import load_subject
from secateur.job.timing import known_latency
from secateur.planning import PruningPlan, StructureLike, describe
from secateur.policies import POLICIES
from secateur.predicting import Latency
from secateur.quantities import parse_quantity
from secateur.requesting import Amount, request_for
from secateur.structure.structure import Structure, trace
from secateur.surgery.embedding import with_tensors
from secateur.surgery.storing import read_tensors
from secateur.surgery.tensors import named_tensors

POINTS = 20  # of a front
SMALLEST = 0.02  # share of the cost at which a front ends, if the floors reach so far


@dataclass(frozen=True)
class Point:
    """A plan for one budget, what it costs, and the scores that leave with it, added up.

    latency: predicted seconds, where the run knows them.
    """

    budget: Mapping[str, str]
    plan: PruningPlan
    flops: int
    params: int
    loss: float
    latency: float | None = None


@dataclass(frozen=True, eq=False)
class Solver:
    """A run's scores with what is needed to choose by them.

    model: the dense one that was scored. turned: whether the run had turned units of it, so that
    its plans are for these weights and not for those that the run was given. latency: of a run with
    a target of it.
    """

    recipe: Recipe
    structure: Structure
    model: torch.nn.Module
    scores: Mapping[str, torch.Tensor]
    turned: bool = False
    latency: Latency | None = None

    def point(self, budget: Mapping[str, Amount], scope: str) -> Point:
        """The plan of a policy. Errors: BudgetError and InputError, as ``secateur.plan``."""
        pruning = self.recipe.pruning
        request = request_for(
            self.structure, self.model, budget, round_to=pruning.round_to, floor=pruning.floor,
            min_share=pruning.min_share, layers=pruning.layers, criterion=pruning.criterion,
            normalise=pruning.normalise, scope=scope,
        )  # fmt: skip
        if "latency" in request.budgets and self.latency is None:
            raise InputError(
                "the run knows no latency; run the recipe with a target of latency, or give flops, "
                "params or bytes"
            )
        costs: StructureLike = self.structure
        if self.latency is not None:
            costs = self.latency.timed(self.structure)
            if pruning.round_to == 1:
                request = replace(request, grains=self.latency.grains(self.structure))
        remove = POLICIES.get(scope)(self.scores, costs, request)
        told = {
            kind: str(parse_quantity(budget[kind], kind))  # type: ignore[arg-type]
            for kind in request.budgets
        }
        why = {"criterion": pruning.criterion, "scope": scope, "budget": told}
        cost = self.structure.cost(remove)
        plan = describe(self.structure, remove, self.recipe.model, why)
        seconds = None if self.latency is None else self.latency.seconds(remove)
        return Point(told, plan, cost.flops, cost.params, self.loss(remove), seconds)

    def loss(self, remove: Mapping[str, tuple[int, ...]]) -> float:
        """The scores that leave, added up: with the criterion ``obs`` the loss to expect."""
        return sum(
            float(self.scores[name][list(units)].double().sum())
            for name, units in remove.items()
            if name in self.scores
        )

    def front(self, kind: str, scope: str, points: int = POINTS) -> list[Point]:
        """Plans from next to nothing removed down to the smallest that the floors allow."""
        shares = np.geomspace(0.95, SMALLEST, points).round(3)
        found: list[Point] = []
        for share in shares:
            try:
                found.append(self.point({kind: float(share)}, scope))
            except BudgetError:
                if not found:
                    raise
                break
        return found


def open_solver(folder: Path, step: int = 1) -> Solver:
    """The scores of a run's first step, that is those of its dense model.

    Errors: InputError for a folder without a run, and one that has not scored yet.
    """
    recipe = folders.open_folder(folder)
    path = folder / "scores" / f"prune-{step}.safetensors"
    if not path.is_file():
        raise InputError(
            f"{folder} has no scores yet; go on with: secateur resume {folder}"
            if not (folder / folders.METRICS).is_file()
            else f"{folder} was made by a version that kept no scores; run the recipe again"
        )
    subject = load_subject(recipe)
    model = with_dense_weights(subject.build(), folder)
    structure = trace(model, subject.example_inputs, part=recipe.part)
    scores = read_tensors(path)
    sizes = {part.name: part.size for part in (*structure.groups, *structure.branches)}
    strange = [name for name, score in scores.items() if sizes.get(name) != len(score)]
    if strange:
        raise InputError(
            f"the scores in {path} are of another model: its {strange[0]!r} is not here; "
            "run the recipe again"
        )
    latency = known_latency(recipe, folder, model, structure, subject.example_inputs)
    path = folder / "scores" / f"turned-{step}.safetensors"
    if not path.is_file():
        return Solver(recipe, structure, model, scores, latency=latency)
    own = {name: tensor.detach() for name, tensor in named_tensors(model).items()}
    with_tensors(model, structure, own | read_tensors(path))
    return Solver(recipe, structure, model, scores, turned=True, latency=latency)


def told(point: Point, dense: Any, seconds: float | None = None) -> dict[str, Any]:
    """A point as JSON. seconds: of the dense model, as predicted, where the run knows them."""
    timed = {}
    if point.latency is not None and seconds:
        timed = {"latency": point.latency, "latency_share": point.latency / seconds}
    return {
        "budget": dict(point.budget),
        "flops": point.flops,
        "params": point.params,
        "flops_share": point.flops / max(dense.flops, 1),
        "params_share": point.params / max(dense.params, 1),
        **timed,
        "loss": point.loss,
    }

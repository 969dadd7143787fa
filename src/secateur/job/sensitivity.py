"""What each group alone costs the model, at a few levels: measured, and not what scores say.

Every point is a pruned model: units of one group leave, the layers that read them are solved anew
as the recipe says, batch norms recalibrated, and the metric and the loss taken on the validation
split. The test split is not looked at.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from secateur.choosing import judge_next
from secateur.config import Recipe
from secateur.errors import InputError
from secateur.job import folders
from secateur.job.calibrating import calibration, is_foreign
from secateur.job.listening import Listener
from secateur.job.validating import validated
from secateur.job.work import Work
from secateur.job.working import begun, threads
from secateur.journal import drop_partial_line
from secateur.metrics import get_metric
from secateur.planning import describe
from secateur.policies._ladder import Ladder, ladders
from secateur.protocols import Subject
from secateur.repair.batch_norm import recalibrate
from secateur.repair.compensation import compensate
from secateur.repair.streaming import fitting
from secateur.structure.groups import BRANCH
from secateur.surgery.applying import apply
from secateur.surgery.embedding import with_solved

LEVELS = (0.25, 0.5, 0.75)
POINTS, DOCUMENT = "sensitivity.jsonl", "sensitivity.json"
Units = Mapping[str, tuple[int, ...]]


def sensitivity(
    recipe: Recipe, subject: Subject, folder: Path, levels: Sequence[float], listener: Listener
) -> dict[str, Any]:
    """Measure all groups and branches at all levels; what is in the folder is not done again.

    levels: shares of a group's units that leave, in (0, 1); the nearest number of units that
    rounding and floors of the recipe allow. Branches leave whole.
    Errors: InputError for levels out of range, and without data.
    """
    wrong = [level for level in levels if not 0 < level < 1]
    if wrong or not levels:
        raise InputError(f"levels are shares between 0 and 1, such as 0.25,0.5; got {wrong[:1]}")
    if subject.data is None:
        raise InputError("sensitivity is measured on data; give 'data' in the recipe, or --data")
    with folders.locked(folder), threads(recipe.threads):
        work = begun(recipe, subject, folder, listener)
        dense = validated(recipe, subject, work.dense)
        assert dense is not None
        candidates = _candidates(work, levels)
        path = folder / POINTS
        drop_partial_line(path)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        done = {(row["group"], row["removed"]): row for row in map(json.loads, lines)}
        missing = [c for c in candidates if (c[0].group.name, c[1]) not in done]
        listener.begin("sensitivity", len(missing))
        measure = _Measure(work)
        for number, (ladder, removed) in enumerate(missing, 1):
            row = measure.row(ladder, removed)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            done[row["group"], removed] = row
            value = row[recipe.metric]
            listener.tick(
                "sensitivity", number,
                f"{row['group']} without {removed} of {row['units']}: {recipe.metric} {value:.4g}",
            )  # fmt: skip
        listener.end(
            "sensitivity", f"{len(candidates)} points of {len(work.structure.groups)} groups"
        )
        rows = [done[ladder.group.name, removed] for ladder, removed in candidates]
        document = _document(recipe, dense, rows, work)
        folders.write_json(folder / DOCUMENT, document)
    return document


def _candidates(work: Work, levels: Sequence[float]) -> list[tuple[Ladder, int]]:
    """Ladders of the recipe's criterion, and numbers of units to leave."""
    recipe, pruning = work.recipe, work.recipe.pruning
    judged = judge_next(
        work.dense, work.dense, work.structure, {}, work.subject.example_inputs,
        criterion=pruning.criterion, budget={"flops": 1.0},
        data=calibration(recipe, work.subject), round_to=pruning.round_to, floor=pruning.floor,
        min_share=pruning.min_share, layers=pruning.layers, normalise=pruning.normalise,
        seed=recipe.seed, branches=pruning.branches, reduction=pruning.reduction,
        loss=work.subject.data.loss if work.subject.data else None,
    )  # fmt: skip
    found = []
    for ladder in ladders(judged.scores, work.structure, judged.request):
        counts = np.array([count for count in ladder.counts if count])
        if not len(counts):
            continue
        whole = ladder.group.name.startswith(BRANCH)
        wanted = [1.0] if whole else levels
        near = [counts[np.abs(counts - level * ladder.group.size).argmin()] for level in wanted]
        found += [(ladder, int(removed)) for removed in dict.fromkeys(near)]
    return found


class _Measure:
    """Points of one run."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.samples = calibration(work.recipe, work.subject)
        self.given: list[Any] = []
        if work.recipe.pruning.compensate and self.samples is not None:
            batches = [batch for batch, _ in self.samples]
            self.given = fitting(work.dense, work.structure, batches)

    def row(self, ladder: Ladder, removed: int) -> dict[str, Any]:
        """What is left without the first units of a ladder."""
        work, recipe = self.work, self.work.recipe
        begun_at = time.perf_counter()
        remove: Units = {ladder.group.name: tuple(sorted(ladder.order[:removed].tolist()))}
        model: nn.Module = work.dense
        if self.given:
            found = compensate(
                model, work.structure, remove, self.given, recipe.seed,
                foreign=is_foreign(recipe),
            )  # fmt: skip
            model = with_solved(model, work.structure, remove, found.tensors)
        plan = describe(work.structure, remove, recipe.model, {"sensitivity": ladder.group.name})
        # the graph's own surgery: it needs no proof, and nobody trains this model
        pruned = apply(model, plan, work.subject.example_inputs, "graph", structure=work.structure)
        if recipe.pruning.recalibrate and self.samples is not None and not is_foreign(recipe):
            recalibrate(pruned, self.samples)
        metric = validated(recipe, work.subject, pruned.eval())
        assert metric is not None
        cost, dense = work.structure.cost(remove), work.structure.cost({})
        return {
            "group": ladder.group.name,
            "units": ladder.group.size,
            "removed": removed,
            recipe.metric: metric[recipe.metric],
            "loss": metric["loss"],
            "flops": cost.flops / max(dense.flops, 1),
            "params": cost.params / max(dense.params, 1),
            "seconds": time.perf_counter() - begun_at,
        }


def _document(
    recipe: Recipe, dense: dict[str, Any], rows: list[dict[str, Any]], work: Work
) -> dict[str, Any]:
    """Groups with their points, the least sensitive first: by the loss that a FLOP costs."""
    cost = work.structure.cost({})
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)

    def price(points: Sequence[Mapping[str, Any]]) -> float:
        gains = [1 - point["flops"] for point in points]
        rises = [point["loss"] - dense["loss"] for point in points]
        return sum(rises) / max(sum(gains), 1e-12)

    ordered = sorted(groups, key=lambda name: price(groups[name]))
    return {
        "model": recipe.model,
        "metric": recipe.metric,
        "higher_is_better": get_metric(recipe.metric).higher_is_better,
        "criterion": recipe.pruning.criterion,
        "compensated": bool(recipe.pruning.compensate),
        "dense": {
            recipe.metric: dense[recipe.metric], "loss": dense["loss"], "flops": cost.flops,
            "params": cost.params,
        },
        "groups": [
            {"group": name, "units": groups[name][0]["units"], "price": price(groups[name]),
             "points": groups[name]}
            for name in ordered
        ],
    }  # fmt: skip

"""What the pruned model must hold: budgets, the largest drop, and floors of further metrics."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from secateur.config import Recipe
from secateur.job.slower import missed_latency
from secateur.job.work import Work
from secateur.metrics import evaluate, get_metric, told_worsening, worsening
from secateur.quantities import parse_quantity
from secateur.structure.copying import copied
from secateur.training.devices import resolve
from secateur.training.loading import batches


def measured_floors(work: Work, model: nn.Module) -> dict[str, dict[str, Any]]:
    """Metric -> what the recipe wants, the value on the test split, and whether it holds.

    A metric of which less is better may be at most what is wanted.
    """
    data, section = work.subject.data, work.recipe.data
    if not work.recipe.floors or data is None or section is None:
        return {}
    device = resolve(work.recipe.device)
    model = copied(model).to(device).eval()
    dataset = data.test if data.test is not None else data.val
    found = {}
    for name, wanted in work.recipe.floors.items():
        rows = batches(dataset, section.batch_size * 2, device=device)
        value = evaluate(model, rows, name, data.loss)[name]
        better = get_metric(name).higher_is_better
        holds = value >= wanted if better else value <= wanted
        found[name] = {"wanted": wanted, "value": value, "holds": holds, "least": better}
    return found


def missed_floors(found: dict[str, dict[str, Any]]) -> list[str]:
    """Those that do not hold, in words."""
    return [
        f"{name} of at {'least' if row['least'] else 'most'} {row['wanted']:g}, here "
        f"{row['value']:.4g}"
        for name, row in found.items()
        if not row["holds"]
    ]


def not_finite(recipe: Recipe, document: dict[str, Any]) -> str:
    """That the pruned model's metric is no finite number, in words; empty where it is one."""
    found = [document[side]["metric"] for side in ("after", "before")]
    values = [None if metric is None else float(metric[recipe.metric]) for metric in found]
    if values[0] is None or math.isfinite(values[0]):
        return ""
    if values[1] is None or math.isfinite(values[1]):
        return f"a finite {recipe.metric}, here {values[0]}"
    return (
        f"a finite {recipe.metric}, here {values[0]}, and {values[1]} before: look for samples "
        "that are NaN or infinite in the split that it is measured on"
    )


def missed_targets(recipe: Recipe, document: dict[str, Any]) -> list[str]:
    """Which budgets do not hold, and whether the allowed drop does not, in words."""
    before, after = document["before"], document["after"]
    missed = [
        f"{name} {wanted}"
        for name, wanted in recipe.target.budgets().items()
        if name != "latency" and after[name] > wanted.resolve(before[name]) * (1 + 1e-9)
    ]
    missed += missed_latency(recipe, document)
    broken = not_finite(recipe, document)
    if broken:
        return [*missed, broken]
    if recipe.max_drop is None or before["metric"] is None:
        return missed
    name = recipe.metric
    drop = worsening(name, before["metric"][name], after["metric"][name])
    allowed = parse_quantity(recipe.max_drop, "drop").value
    if not drop <= allowed + 1e-12:  # a metric that is NaN does not hold
        most, here = told_worsening(name, allowed), told_worsening(name, drop)
        missed.append(f"a drop of {name} of at most {most}, here {here}")
    return missed

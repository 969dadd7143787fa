"""Further metrics that the pruned model must hold."""

from __future__ import annotations

from typing import Any

from torch import nn

from secateur.job.work import Work
from secateur.metrics import evaluate, get_metric
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
        value = evaluate(model, batches(dataset, section.batch_size * 2, device=device), name)[name]
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

"""How much can leave: the largest ratio whose validation error stays within a margin of dense.

Every ratio is the recipe carried out with that much asked for: pruned, compensated, recalibrated
and trained as it says. The test split is not looked at.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from secateur.config import Recipe, read_recipe
from secateur.errors import BudgetError, InputError
from secateur.job import folders
from secateur.job.listening import Listener, Silent
from secateur.job.noninferiority import (
    NAMES,
    UNITS,
    Comparison,
    compare,
    in_words,
    largest,
    verdict,
)
from secateur.job.sample_errors import LOSS, measure_of, sample_errors
from secateur.job.stages import cut, finetuned, pruned
from secateur.job.timing import prepare
from secateur.job.work import Work
from secateur.job.working import begun, threads
from secateur.journal import Journal, drop_partial_line
from secateur.measure.sizes import count_nonzero, count_params
from secateur.protocols import Subject

POINTS, DOCUMENT = "ratios.jsonl", "ratio.json"
KNOBS = ("target.flops", "target.params", "sparsity.zeros", "sparsity.total")


def largest_ratio(
    recipe: Recipe,
    subject: Subject,
    folder: Path,
    margin: float,
    levels: Sequence[float],
    knob: str,
    listener: Listener,
) -> dict[str, Any]:
    """Bisect over ratios; what is in the folder is not done again. Returns the document.

    margin: of the validation error, a share; of the dense model's loss, where there are no right
    and wrong answers. levels: ratios, rising in (0, 1). knob: the key of the recipe that a ratio is
    written to; to a target as what is left.
    Errors: InputError for a knob that the recipe has no use for, without data, for a dense loss
    that is not above 0.
    """
    recipe_at(recipe, knob, levels[0] if levels else 0.5)
    if subject.data is None:
        raise InputError("a ratio is found on data; give 'data' in the recipe, or --data")
    with folders.locked(folder), threads(recipe.threads):
        work = begun(recipe, subject, folder, listener)
        kind = measure_of(work)
        dense = sample_errors(work, work.dense, kind)
        scale = float(dense.mean()) if kind == LOSS else 1.0
        if not scale > 0:
            raise InputError(
                f"the loss of the dense model is {scale:g}, of which no margin is a share; give a "
                "loss above 0, such as a mean error"
            )
        dense = dense / scale if kind == LOSS else dense
        path = folder / POINTS
        drop_partial_line(path)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        rows = {row["ratio"]: row for row in map(json.loads, lines) if row["knob"] == knob}
        listener.begin("ratio")

        def measure(ratio: float) -> Comparison:
            if ratio not in rows:
                row = _row(work, knob, ratio, Dense(kind, scale, dense), margin)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                rows[ratio] = row
                listener.tick("ratio", len(rows), _told(row, kind))
            point = Comparison(**rows[ratio]["comparison"])
            return replace(point, accepted=point.upper <= margin)  # measured for another, maybe

        found = largest(levels, measure)
        points = [
            {**rows[ratio], "comparison": asdict(point), "verdict": verdict(ratio, found, margin)}
            for ratio, point in found.points.items()
        ]
        document = {
            "model": recipe.model,
            "knob": knob,
            "margin": margin,
            "samples": len(dense),
            "measure": kind,
            "dense": {
                "error": float(dense.mean()), "flops": work.structure.cost({}).flops,
                "params": count_params(work.dense),
            },
            "ratio": found.ratio,
            "set": setting(knob, found.ratio) if found.ratio else None,
            "points": points,
            "curve": _monotone([point["comparison"]["error"] for point in points]),
            "words": in_words(found, margin, len(dense), kind),
        }  # fmt: skip
        listener.end("ratio", f"largest within the margin: {found.ratio:g}")
        folders.write_json(folder / DOCUMENT, document)
    return document


def recipe_at(recipe: Recipe, knob: str, ratio: float) -> Recipe:
    """The recipe with a ratio asked for. Errors: InputError for a key that it has no use for."""
    if knob not in KNOBS:
        raise InputError(f"a ratio cannot be written to {knob!r}; give one of {', '.join(KNOBS)}")
    section, key = knob.split(".")
    document = recipe.model_dump(mode="json")
    if section == "target":
        document["target"] = {**document["target"], key: f"{1 - ratio:.10g}x"}
    else:
        if recipe.sparsity is None or recipe.sparsity.pattern != "unstructured":
            raise InputError(
                f"a ratio of {knob} wants a recipe with an unstructured 'sparsity'; give one, or "
                "--over target.flops"
            )
        rules = ("zeros", "total", "threshold", "energy", "natural_break")
        plain = {k: v for k, v in document["sparsity"].items() if k not in rules}
        document["sparsity"] = {**plain, key: ratio}
    return read_recipe(document, knob)


def setting(knob: str, ratio: float) -> str:
    """What ``--set`` takes for a ratio."""
    return f"{knob}={1 - ratio:.10g}x" if knob.startswith("target") else f"{knob}={ratio:g}"


@dataclass(frozen=True, eq=False)
class Dense:
    """What the dense model answers. kind: of the measure. errors: one for each validation sample,
    losses divided by ``scale``, their mean."""

    kind: str
    scale: float
    errors: np.ndarray


def _row(base: Work, knob: str, ratio: float, dense: Dense, margin: float) -> dict[str, Any]:
    """Carry the recipe out in a folder of its own, and compare; a target out of reach loses all."""
    started = time.perf_counter()
    recipe = recipe_at(base.recipe, knob, ratio)
    place = base.folder / "ratios" / f"{ratio:g}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    work = Work(
        recipe, base.subject, place, Journal(place), Silent(), base.dense, base.structure
    )  # fmt: skip
    try:
        prepare(work)
        pruned(work)
        cut(work)
        finetuned(work)
    except BudgetError as error:
        shutil.rmtree(place)
        worst = 2.0 if dense.kind == LOSS else 1.0
        none = Comparison(worst, worst - float(dense.errors.mean()), 1.0, 0, 0, False)
        return {
            "ratio": ratio, "knob": knob, "comparison": asdict(none), "unreachable": str(error),
            "flops": None, "nonzero": None, "seconds": time.perf_counter() - started,
        }  # fmt: skip
    model, plan = work.model(), work.plan()
    assert plan is not None
    errors = sample_errors(work, model, dense.kind)
    errors = errors / dense.scale if dense.kind == LOSS else errors
    comparison = compare(errors, dense.errors, margin)
    shutil.rmtree(place)
    return {
        "ratio": ratio,
        "knob": knob,
        "comparison": asdict(comparison),
        "flops": base.structure.cost(plan.remove).flops,
        "nonzero": count_nonzero(model),
        "seconds": time.perf_counter() - started,
    }


def _told(row: dict[str, Any], kind: str) -> str:
    point = row["comparison"]
    if "unreachable" in row:
        return f"{row['ratio']:g}: out of reach"
    return (
        f"{row['ratio']:g}: {NAMES[kind]} {point['error']:.4f}, at most "
        f"{100 * point['upper']:.2f} {UNITS[kind]} above dense, "
        f"{'within' if point['accepted'] else 'beyond'} the margin"
    )


def _monotone(errors: Sequence[float]) -> list[float]:
    """The rising curve nearest to what was measured, for the picture (pool adjacent violators)."""
    from scipy.optimize import isotonic_regression

    return [] if not errors else isotonic_regression(np.array(errors)).x.tolist()

"""A step of pruning: what leaves is chosen, removed, made up for, and proven."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from secateur.choosing import Judged, count_classes, judge_next
from secateur.config import Recipe
from secateur.cutting import joined_cut
from secateur.job.allocating import allocate
from secateur.job.calibrating import calibration, can_repair, is_foreign, remarks
from secateur.job.clock import Clock
from secateur.job.evidence import evidence
from secateur.job.turning import turned
from secateur.job.validating import described, validated
from secateur.job.work import Work
from secateur.planning import describe, digest
from secateur.quantities import Quantity
from secateur.repair.batch_norm import recalibrate
from secateur.repair.compensation import compensate
from secateur.repair.solver import Solved
from secateur.repair.streaming import fitting
from secateur.structure.copying import copied
from secateur.structure.structure import Removal, trace
from secateur.surgery.applying import apply, origin_of
from secateur.surgery.embedding import embed, unscaled, with_solved, with_tensors
from secateur.surgery.storing import save
from secateur.verification import verify


def prune(work: Work, step: int) -> dict[str, Any]:
    """Turn, choose, compensate, apply, verify, recalibrate; the whole plan so far, in dense
    numbering."""
    recipe, structure, stage = work.recipe, work.structure, f"prune {step}"
    pruning = recipe.pruning
    work.listener.begin(stage)
    clock = Clock()
    before = work.plan()
    removed = before.remove if before else {}
    dense = work.dense
    if before is not None:  # what was learnt since, among zeros
        pruned = work.model()
        tensors = unscaled(pruned, structure, origin_of(pruned).scales)
        dense = with_tensors(copied(dense), structure, embed(structure, removed, tensors))
    samples = calibration(recipe, work.subject)
    foreign, repairs = is_foreign(recipe), can_repair(samples)
    said = remarks(recipe, dense, samples) if before is None else []
    for remark in said:
        work.listener.say(remark)
    notes = []
    given: list[Any] = []
    classes = None
    if pruning.compensate and samples is not None and repairs:
        given = fitting(dense, structure, [batch for batch, _ in samples])
        classes = None if structure.part else count_classes(dense, samples[0])
    told: list[dict[str, Any]] = []
    # Only these scores are of the dense-shaped model; others are of the pruned one, as it is.
    if pruning.turn and given and (before is None or pruning.criterion == "obs"):
        dense, told = turned(work, step, dense, given, removed)
        clock.lap("turn")

    def judge(model: nn.Module, shaped: nn.Module, gone: Removal) -> Judged:
        return judge_next(
            model,
            shaped,
            structure,
            gone,
            work.subject.example_inputs,
            criterion=pruning.criterion,
            budget=_budget_of_step(recipe, work.costs.cost({}), step),
            data=samples,
            round_to=pruning.round_to,
            floor=pruning.floor,
            min_share=pruning.min_share,
            layers=pruning.layers,
            normalise=pruning.normalise,
            seed=recipe.seed + step,
            branches=pruning.branches,
            scope=pruning.scope,
            threshold=pruning.threshold,
            reduction=pruning.reduction,
            loss=work.subject.data.loss if work.subject.data else None,
        )

    judged = judge(dense if before is None else work.model(), dense, removed)
    clock.lap("score")
    widths = allocate(
        work, step, dense, judged, given, classes, lambda model, gone: judge(model, model, gone),
        judging=clock.laps["score"],
    )  # fmt: skip
    remove = widths.remove
    notes += widths.notes
    if pruning.scope == "natural-break":
        notes += no_break(judged.scores, remove)
    clock.lap("allocate")
    why = {
        "criterion": pruning.criterion,
        "scope": pruning.scope,
        "budget": recipe.target.model_dump(exclude_none=True),
        "step": f"{step}/{pruning.steps}",
        "seed": recipe.seed,
    }
    if before is not None:
        why["parent"] = digest(before)
    plan = describe(structure, remove, recipe.model, why)
    inputs = work.subject.example_inputs
    solved: tuple[Solved, ...] = ()
    if given:
        found = compensate(dense, structure, remove, given, recipe.seed + step, foreign=foreign)
        dense, solved = with_solved(dense, structure, remove, found.tensors), found.solved
        clock.lap("compensate")
    result = apply(dense, plan, inputs, pruning.method, structure=structure)
    clock.lap("apply")
    verdict = verify(dense, result, plan, inputs, structure, strict=True)
    clock.lap("verify")
    notes += origin_of(result).notes
    for note in notes:
        work.listener.say(note)
    if pruning.recalibrate and samples is not None and repairs and not foreign:
        recalibrate(result, samples)
    clock.lap("recalibrate")
    save(result.eval(), work.folder / "steps" / stage.replace(" ", "-"))
    metric = validated(recipe, work.subject, result)
    cost = structure.cost(remove)
    share = cost.flops / max(structure.cost({}).flops, 1)
    return {
        "note": f"{share:.1%} of the FLOPs left, {described(recipe, metric)}",
        "flops": cost.flops,
        "params": cost.params,
        "validation": metric,
        "verification": {
            "ok": verdict.ok,
            "error": verdict.error,
            "of_effect": verdict.of_effect if math.isfinite(verdict.of_effect) else None,
            "effect": verdict.effect,
            "exact": verdict.exact,
        },
        "cost": clock.laps,
        "trials": list(widths.trials),
        "taken": widths.taken,
        "turned": told,
        **evidence(work.costs, judged, pruning.scope, remove, solved),
        "surgery": origin_of(result).kind,
        "notes": notes,
        "remarks": said,
    }


def no_break(scores: Mapping[str, Any], remove: Removal) -> list[str]:
    """A sentence on the groups whose scores have no natural break; none where all have one."""
    whole = [name for name in scores if name not in remove]
    if not whole:
        return []
    return [
        f"the scores of {len(whole)} of {len(scores)} groups have no natural break, and they lose "
        f"nothing: {', '.join(whole)}"
    ]


def keep(work: Work, remove: Removal | None = None) -> dict[str, Any]:
    """Without a target: nothing leaves, or what the dense training chose and left at zero."""
    chosen = {name: tuple(units) for name, units in (remove or {}).items()}
    found = _given(work, "prune 1", work.dense, chosen)
    if work.recipe.sparsity is None:
        return found
    samples = calibration(work.recipe, work.subject)  # which single weights are cut with
    said = remarks(work.recipe, work.dense, samples)
    for remark in said:
        work.listener.say(remark)
    return {**found, "remarks": said}


def cut(work: Work, stage: str, remove: Removal) -> dict[str, Any]:
    """Remove units of the pruned model that its training left at zero: the whole plan so far."""
    before, model = work.plan(), work.model()
    assert before is not None
    now = trace(model, work.subject.example_inputs, part=work.structure.part)
    whole, dense = joined_cut(work.dense, work.structure, before, model, now, remove)
    return _given(work, stage, dense, dict(whole.remove))


def _given(
    work: Work, stage: str, dense: nn.Module, remove: dict[str, tuple[int, ...]]
) -> dict[str, Any]:
    """Carry out a removal that a training has chosen, in the form of a step of pruning."""
    recipe, structure = work.recipe, work.structure
    work.listener.begin(stage)
    clock = Clock()
    inputs = work.subject.example_inputs
    why = {"seed": recipe.seed, **({"criterion": "chosen by a training"} if remove else {})}
    plan = describe(structure, remove, recipe.model, why)
    result = apply(dense, plan, inputs, recipe.pruning.method, structure=structure)
    clock.lap("apply")
    verdict = verify(dense, result, plan, inputs, structure, strict=True)
    clock.lap("verify")
    save(result.eval(), work.folder / "steps" / stage.replace(" ", "-"))
    metric, cost = validated(recipe, work.subject, result), structure.cost(remove)
    share = cost.flops / max(structure.cost({}).flops, 1)
    left = f"{share:.1%} of the FLOPs left" if remove else "nothing leaves"
    return {
        "note": f"{left}, {described(recipe, metric)}",
        "flops": cost.flops, "params": cost.params, "validation": metric,
        "verification": {
            "ok": verdict.ok, "error": verdict.error, "of_effect": None,
            "effect": verdict.effect, "exact": verdict.exact,
        },
        "cost": clock.laps, "trials": [], "taken": None, "turned": [], "curves": [], "front": [],
        "solved": [], "surgery": origin_of(result).kind, "notes": list(origin_of(result).notes),
    }  # fmt: skip


def _budget_of_step(recipe: Recipe, dense: Any, step: int) -> dict[str, Quantity]:
    """Shares of dense shrink by the same factor at every step: b^(t/T)."""
    budget = {}
    for name, wanted in recipe.target.budgets().items():
        full = float(getattr(dense, name))
        share = min(1.0, wanted.resolve(full) / full)
        last = step == recipe.pruning.steps
        budget[name] = (
            wanted if last else Quantity(share ** (step / recipe.pruning.steps), "fraction")
        )
    return budget

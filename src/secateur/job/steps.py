"""The stages that make models: train the dense one, prune, train what is left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.choosing import Judged, count_classes, judge_next
from secateur.config import Recipe, TrainingSection
from secateur.errors import InputError
from secateur.job.allocating import allocate
from secateur.job.calibrating import calibration, is_foreign
from secateur.job.evidence import evidence
from secateur.job.listening import Listener, plain
from secateur.job.turning import turned
from secateur.job.work import Work
from secateur.metrics import evaluate, get_metric
from secateur.planning import describe, digest
from secateur.protocols import Subject
from secateur.quantities import Quantity
from secateur.repair.batch_norm import recalibrate
from secateur.repair.compensation import Solved, compensate
from secateur.repair.streaming import fitting
from secateur.structure.copying import copied
from secateur.structure.structure import Removal
from secateur.surgery.applying import apply, origin_of
from secateur.surgery.embedding import embed, unscaled, with_solved, with_tensors
from secateur.surgery.storing import save
from secateur.training.augmentation import Augmentation
from secateur.training.devices import resolve
from secateur.training.distillation import Distillation
from secateur.training.history import EpochReport
from secateur.training.loading import batches
from secateur.training.loop import finetune
from secateur.training.settings import FinetuneSettings
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
    foreign = is_foreign(recipe)
    notes = []
    if foreign:
        notes.append(
            f"calibrated on {pruning.calibrate} instead of training samples; what is left will "
            "answer worse than it could"
        )
    given: list[Any] = []
    classes = None
    if pruning.compensate and samples is not None:
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
        )

    judged = judge(dense if before is None else work.model(), dense, removed)
    clock.lap("score")
    widths = allocate(
        work, step, dense, judged, given, classes, lambda model, gone: judge(model, model, gone)
    )
    remove = widths.remove
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
    if pruning.recalibrate and samples is not None and not foreign:
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
    }


def keep(work: Work) -> dict[str, Any]:
    """Without a target: nothing leaves, in the form of a step of pruning."""
    recipe, structure = work.recipe, work.structure
    work.listener.begin("prune 1")
    clock = Clock()
    inputs = work.subject.example_inputs
    plan = describe(structure, {}, recipe.model, {"seed": recipe.seed})
    result = apply(work.dense, plan, inputs, recipe.pruning.method, structure=structure)
    clock.lap("apply")
    verdict = verify(work.dense, result, plan, inputs, structure, strict=True)
    clock.lap("verify")
    save(result.eval(), work.folder / "steps" / "prune-1")
    metric, cost = validated(recipe, work.subject, result), structure.cost({})
    return {
        "note": f"nothing leaves, {described(recipe, metric)}",
        "flops": cost.flops, "params": cost.params, "validation": metric,
        "verification": {
            "ok": verdict.ok, "error": verdict.error, "of_effect": None,
            "effect": verdict.effect, "exact": verdict.exact,
        },
        "cost": clock.laps, "trials": [], "taken": None, "turned": [], "curves": [], "front": [],
        "solved": [], "surgery": origin_of(result).kind, "notes": list(origin_of(result).notes),
    }  # fmt: skip


def train(
    work: Work,
    stage: str,
    section: TrainingSection,
    held: Callable[[Work, nn.Module], Mapping[str, torch.Tensor] | None] = lambda work, model: None,
) -> dict[str, Any]:
    """Train the pruned model as it stands. held: masks of what stays zero."""
    model = work.model()
    teacher = work.dense if section.distill else None
    history = _train(
        work.recipe, work.subject, model, section, stage, work.folder, work.listener, teacher,
        held(work, model),
    )  # fmt: skip
    save(model.eval(), work.folder / "steps" / stage.replace(" ", "-"))
    metric = validated(work.recipe, work.subject, model)
    plan = work.plan()
    assert plan is not None
    cost = work.structure.cost(plan.remove)
    return {
        "note": described(work.recipe, metric),
        "validation": metric,
        "history": history,
        "flops": cost.flops,
        "params": cost.params,
    }


def train_dense(
    recipe: Recipe, subject: Subject, folder: Path, listener: Listener
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Train a new dense model."""
    assert recipe.train_dense is not None
    torch.manual_seed(recipe.seed)
    model = subject.build()
    history = _train(recipe, subject, model, recipe.train_dense, "dense", folder, listener, None)
    return model, history


def validated(recipe: Recipe, subject: Subject, model: nn.Module) -> dict[str, Any] | None:
    """Metric and loss on the validation split, or None without data."""
    return _evaluated(recipe, model, subject.data.val if subject.data else None)


def _evaluated(recipe: Recipe, model: nn.Module, dataset: Any) -> dict[str, Any] | None:
    if dataset is None or recipe.data is None:
        return None
    device = resolve(recipe.device)
    model.to(device)
    result = evaluate(
        model, batches(dataset, recipe.data.batch_size * 2, device=device), recipe.metric
    )
    model.to("cpu")
    return plain(result)


def described(recipe: Recipe, metric: dict[str, Any] | None) -> str:
    """``accuracy 97.20 % on validation``."""
    if metric is None:
        return "no data to validate on"
    value = metric[recipe.metric]
    text = f"{100 * value:.2f} %" if get_metric(recipe.metric).is_share else f"{value:.4g}"
    return f"{recipe.metric} {text} on validation"


class Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Book the time since the last lap under a name."""
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now


def _train(
    recipe: Recipe,
    subject: Subject,
    model: nn.Module,
    section: TrainingSection,
    stage: str,
    folder: Path,
    listener: Listener,
    teacher: nn.Module | None,
    masks: Mapping[str, torch.Tensor] | None = None,
) -> list[dict[str, Any]]:
    if subject.data is None or recipe.data is None:
        raise InputError(f"the recipe trains ({stage}) but names no data; add a 'data' section")
    settings = FinetuneSettings(
        epochs=section.epochs,
        batch_size=section.batch_size or recipe.data.batch_size,
        optimizer=section.optimizer,
        learning_rate=section.learning_rate,
        momentum=section.momentum,
        weight_decay=section.weight_decay,
        schedule=section.schedule,
        warmup=section.warmup,
        label_smoothing=section.label_smoothing,
        gradient_clip=section.gradient_clip,
        distill=Distillation(section.distill, section.temperature) if teacher else None,
        augmentation=Augmentation(**section.augmentation.model_dump()),
        mixed_precision=section.mixed_precision,
        keep_best=section.keep_best,
        best_by=recipe.metric,
        higher_is_better=get_metric(recipe.metric).higher_is_better,
        seed=recipe.seed,
    )
    listener.begin(stage, section.epochs)
    history: list[dict[str, Any]] = []

    def on_epoch(report: EpochReport) -> None:
        value = report.metrics.get(recipe.metric)
        score = "" if value is None else f", {recipe.metric} {value:.4f} on validation"
        listener.tick(stage, report.epoch, f"loss {report.loss:.3f}{score}")

    result = finetune(
        model,
        subject.data.train,
        settings,
        teacher=teacher,
        validate=_validator(recipe, subject),
        checkpoint=_checkpoint(folder, stage),
        on_epoch=on_epoch,
        device=resolve(recipe.device),
        masks=masks,
    )
    for report in result.epochs:
        history.append(
            {
                "epoch": report.epoch,
                "loss": report.loss,
                "validation": plain(dict(report.metrics)),
                "seconds": report.seconds,
            }
        )
    return history


def _checkpoint(folder: Path, stage: str) -> Path:
    place = folder / "checkpoints"
    place.mkdir(exist_ok=True)
    return place / f"{stage.replace(' ', '-')}.safetensors"


def _validator(recipe: Recipe, subject: Subject) -> Callable[[nn.Module], dict[str, float]]:
    data, section = subject.data, recipe.data
    assert data is not None and section is not None

    def validate(model: nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device
        found = evaluate(
            model, batches(data.val, section.batch_size * 2, device=device), recipe.metric
        )
        return {name: float(value) for name, value in found.items()}

    return validate


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

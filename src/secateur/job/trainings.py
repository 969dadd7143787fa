"""The stages that train: the dense model, and what is left of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.config import Recipe, TrainingSection
from secateur.errors import InputError
from secateur.job.listening import Listener, plain
from secateur.job.validating import described, validated
from secateur.job.work import Work
from secateur.metrics import evaluate, get_metric
from secateur.protocols import Subject
from secateur.surgery.storing import save
from secateur.training.augmentation import Augmentation
from secateur.training.devices import resolve
from secateur.training.distillation import Distillation
from secateur.training.history import EpochReport
from secateur.training.loading import batches
from secateur.training.loop import finetune
from secateur.training.settings import FinetuneSettings


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

"""The stages that train: the dense model, and what is left of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.config import Recipe, TrainingSection
from secateur.errors import InputError
from secateur.job.calibrating import calibration
from secateur.job.listening import Listener, Silent, plain
from secateur.job.methods import methods_of, needs_structure
from secateur.job.rewinding import EPOCHS, rewound
from secateur.job.sparsifying import DENSE_MASKS, MASKS
from secateur.job.validating import described, validated
from secateur.job.work import Work
from secateur.masking.storing import save_masks
from secateur.metrics import evaluate, get_metric
from secateur.protocols import Subject
from secateur.structure.structure import Structure, trace
from secateur.surgery.storing import save
from secateur.tickets import lottery_ticket, masks_before
from secateur.training.augmentation import Augmentation
from secateur.training.devices import resolve
from secateur.training.distillation import Distillation
from secateur.training.extensions import Method
from secateur.training.features import surviving_channels
from secateur.training.history import EpochReport, History
from secateur.training.keeping import KeepEpochs
from secateur.training.loading import batches
from secateur.training.loop import finetune
from secateur.training.settings import FinetuneSettings

Masks = Mapping[str, torch.Tensor]


def train(
    work: Work,
    stage: str,
    section: TrainingSection,
    held: Callable[[Work, nn.Module], Masks | None] = lambda work, model: None,
) -> dict[str, Any]:
    """Train the pruned model as it stands. held: masks of what stays zero."""
    model = work.model()
    masks = held(work, model)
    if section.rewind is not None and section.rewind_weights:
        model = rewound(work, section.rewind)
    distils = section.distill or section.distill_features or section.distill_attention
    run = _Training(
        work.recipe, work.subject, model, section, stage, work.folder, work.listener,
        work.dense if distils else None,
    )  # fmt: skip
    gone = work.plan()
    channels = surviving_channels(work.structure, gone.remove if gone else {}) if distils else None
    history = _train(run, masks, channels=channels)
    place = work.folder / "steps" / stage.replace(" ", "-")
    save(model.eval(), place)
    zeros = _joined(masks, history.masks)
    if zeros:
        save_masks(zeros, place / MASKS)
    metric = validated(work.recipe, work.subject, model)
    plan = work.plan()
    assert plan is not None
    cost = work.structure.cost(plan.remove)
    return {
        "note": described(work.recipe, metric),
        "validation": metric,
        "history": _rows(history),
        "flops": cost.flops,
        "params": cost.params,
        **_decided(history, stage, work.listener),
    }


def train_dense(
    recipe: Recipe, subject: Subject, folder: Path, listener: Listener
) -> tuple[nn.Module, dict[str, Any]]:
    """Train a new dense model; what the journal keeps of it. Masks go into the run's folder."""
    assert recipe.train_dense is not None
    torch.manual_seed(recipe.seed)
    model = subject.build()
    kept = [s.rewind for s in (recipe.between, recipe.finetune) if s and s.rewind is not None]
    more = [KeepEpochs(tuple(sorted(set(kept))), str(folder / EPOCHS))] if kept else []
    run = _Training(recipe, subject, model, recipe.train_dense, "dense", folder, listener, None)
    history = _train(run, None, more)
    # Under a target layers are solved anew, and zeros have served to choose what leaves.
    if history.masks and not recipe.target.budgets():
        save_masks(history.masks, folder / DENSE_MASKS)
    return model, {"history": _rows(history), **_decided(history, "dense", listener)}


def train_alone(
    recipe: Recipe,
    subject: Subject,
    model: nn.Module,
    section: TrainingSection,
    stage: str,
    folder: Path,
) -> list[dict[str, Any]]:
    """Train any model on the recipe's data, in place; its epochs. Nothing of a run is looked at."""
    run = _Training(recipe, subject, model, section, stage, folder, Silent(), None)
    return _rows(_train(run, None))


@dataclass(frozen=True, eq=False)
class _Training:
    """What a training of a recipe is about."""

    recipe: Recipe
    subject: Subject
    model: nn.Module
    section: TrainingSection
    stage: str
    folder: Path
    listener: Listener
    teacher: nn.Module | None

    @property
    def settings(self) -> FinetuneSettings:
        """The section's, with what it leaves to the recipe."""
        section, recipe = self.section, self.recipe
        assert recipe.data is not None
        distill = None
        if self.teacher is not None:
            distill = Distillation(
                section.distill, section.temperature, section.distill_features,
                section.distill_attention, tuple(section.distill_at),
            )  # fmt: skip
        return FinetuneSettings(
            epochs=section.epochs,
            batch_size=section.batch_size or recipe.data.batch_size,
            begin_at=section.rewind or 0,
            accumulate=section.accumulate,
            optimizer=section.optimizer,
            learning_rate=section.learning_rate,
            momentum=section.momentum,
            weight_decay=section.weight_decay,
            schedule=section.schedule,
            warmup=section.warmup,
            label_smoothing=section.label_smoothing,
            gradient_clip=section.gradient_clip,
            distill=distill,
            augmentation=Augmentation(**section.augmentation.model_dump()),
            mixed_precision=section.mixed_precision,
            keep_best=section.keep_best,
            best_by=recipe.metric,
            higher_is_better=get_metric(recipe.metric).higher_is_better,
            seed=recipe.seed,
        )


def _train(
    run: _Training,
    masks: Masks | None,
    more: Sequence[Method] = (),
    channels: Mapping[str, torch.Tensor] | None = None,
) -> History:
    recipe, subject, section, stage = run.recipe, run.subject, run.section, run.stage
    if subject.data is None or recipe.data is None:
        raise InputError(f"the recipe trains ({stage}) but names no data; add a 'data' section")
    methods = [*methods_of(section), *more]
    structure: Structure | None = None
    if needs_structure(section, methods):
        structure = trace(run.model, subject.example_inputs, part=recipe.part)
    if section.before is not None:
        assert structure is not None
        masks = _joined(masks, masks_before(
            run.model, structure, section.before.criterion, section.before.zeros,
            rounds=section.before.rounds, schedule=section.before.schedule,
            scope=section.before.scope, keep=section.before.keep,
            data=calibration(recipe, subject), loss=subject.data.loss, seed=recipe.seed,
        ))  # fmt: skip
    run.listener.begin(stage, section.epochs)

    def on_epoch(report: EpochReport) -> None:
        value = report.metrics.get(recipe.metric)
        score = "" if value is None else f", {recipe.metric} {value:.4f} on validation"
        told = "".join(f", {name} {value:.3g}" for name, value in report.details.items())
        run.listener.tick(stage, report.epoch, f"loss {report.loss:.3f}{score}{told}")

    train = subject.data.train
    validate, checkpoint = _validator(recipe, subject), _checkpoint(run.folder, stage)
    device = resolve(recipe.device)
    ticket = section.ticket
    if ticket is not None:
        assert structure is not None
        return lottery_ticket(
            run.model, structure, train, run.settings, ticket.zeros, rounds=ticket.rounds,
            rewind=ticket.rewind, weights=ticket.weights, scope=ticket.scope, keep=ticket.keep,
            methods=methods, masks=masks, validate=validate, loss=subject.data.loss,
            folder=checkpoint.with_suffix(""), on_epoch=on_epoch, device=device,
        )  # fmt: skip
    return finetune(
        run.model, train, run.settings, teacher=run.teacher, validate=validate,
        loss=subject.data.loss, checkpoint=checkpoint, on_epoch=on_epoch, device=device,
        masks=masks, methods=methods, structure=structure, channels=channels,
    )  # fmt: skip


def _joined(first: Masks | None, second: Masks | None) -> dict[str, torch.Tensor]:
    """An element stays where both let it."""
    found = dict(first or {})
    for name, mask in (second or {}).items():
        found[name] = found[name].cpu() & mask.cpu() if name in found else mask.cpu()
    return found


def _rows(history: History) -> list[dict[str, Any]]:
    return [
        {
            "epoch": report.epoch,
            "loss": report.loss,
            "validation": plain(dict(report.metrics)),
            "seconds": report.seconds,
            **({"details": plain(dict(report.details))} if report.details else {}),
        }
        for report in history.epochs
    ]


def _decided(history: History, stage: str, listener: Listener) -> dict[str, Any]:
    """What methods of the training chose, and whether it brought nothing."""
    found: dict[str, Any] = {}
    if history.kept_report is None:
        text = (
            f"every epoch of the training {stage!r} was worse on validation than the model before "
            "it, which is kept; try a lower learning rate"
        )
        listener.say(text)
        found["remarks"] = [text]
    if history.remove:
        found["remove"] = {name: list(units) for name, units in history.remove.items()}
    if history.masks:
        found["zeros"] = {
            name: float((~mask).double().mean()) for name, mask in history.masks.items()
        }
    return found


def _checkpoint(folder: Path, stage: str) -> Path:
    place = folder / "checkpoints"
    place.mkdir(exist_ok=True)
    return place / f"{stage.replace(' ', '-')}.safetensors"


def _validator(recipe: Recipe, subject: Subject) -> Callable[[nn.Module], dict[str, float]]:
    data, section = subject.data, recipe.data
    assert data is not None and section is not None

    def validate(model: nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device
        rows = batches(data.val, section.batch_size * 2, device=device)
        found = evaluate(model, rows, recipe.metric, data.loss)
        return {name: float(value) for name, value in found.items()}

    return validate

"""Look at the model of a run again: evaluate it, export it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.config import Recipe
from secateur.errors import InputError
from secateur.exporters import EXPORTERS, suffix_of
from secateur.job import folders
from secateur.job.exporting import exported
from secateur.job.listening import plain
from secateur.job.subjects import load_subject
from secateur.metrics import evaluate
from secateur.protocols import Subject
from secateur.surgery.storing import load, read_tensors
from secateur.surgery.tensors import unique_tensors
from secateur.training.devices import resolve
from secateur.training.loading import batches


def evaluate_run(folder: Path, dense: bool, split: str | None) -> tuple[str, dict[str, Any]]:
    """The split (the test split, or else val, for None), and metric and loss on it.

    Errors: InputError.
    """
    if folders.open_folder(folder).data is None:
        raise InputError(f"the recipe of {folder} names no data to evaluate on")
    recipe, subject, model = opened_run(folder, dense)
    assert subject.data is not None and recipe.data is not None
    split = split or ("val" if subject.data.test is None else "test")
    splits = {"train": subject.data.train, "val": subject.data.val, "test": subject.data.test}
    if splits.get(split) is None:
        known = ", ".join(name for name, part in splits.items() if part is not None)
        raise InputError(f"there is no split '{split}'; known are {known}")
    device = resolve(recipe.device)
    found = evaluate(
        model.to(device),
        batches(splits[split], recipe.data.batch_size * 2, device=device),
        recipe.metric,
        subject.data.loss,
    )
    return split, plain(found)


def export_run(folder: Path, names: list[str], output: Path | None) -> list[dict[str, Any]]:
    """Export a run's pruned model in several formats. Errors: InputError."""
    folders.open_folder(folder)
    for name in names:
        EXPORTERS.get(name)  # refuses an unknown one before any work
    recipe, subject, model = opened_run(folder, False)
    place = output or folder / "exports"
    place.mkdir(parents=True, exist_ok=True)
    result = []
    for name in names:
        found = exported(name, model, place / f"model{suffix_of(name)}", recipe, subject)
        result.append({**found, "path": str(place / found["path"])})
    return result


def opened_run(folder: Path, dense: bool) -> tuple[Recipe, Subject, nn.Module]:
    """The recipe of a run, its subject, and the dense or the pruned model. Errors: InputError."""
    recipe = folders.open_folder(folder)
    subject = load_subject(recipe)
    if not dense:
        if not (folder / "model").is_dir():
            raise InputError(f"{folder} is not finished; go on with: secateur resume {folder}")
        return recipe, subject, load(folder / "model", subject.build).eval()
    return recipe, subject, with_dense_weights(subject.build(), folder)


def with_dense_weights(model: nn.Module, folder: Path) -> nn.Module:
    """Write the dense weights of a run into a dense model, which is returned in eval mode."""
    tensors = read_tensors(folder / "dense.safetensors")
    with torch.no_grad():
        for name, tensor in unique_tensors(model).items():
            tensor.copy_(tensors[name])
    return model.eval()
